"""Running balances: of accounts that have limits, holds, or were named in a condition."""
