"""Who may do what: tokens, logins, policies, callers, refusals."""
