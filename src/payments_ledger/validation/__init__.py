"""What comes from outside, read exactly: JSON to the digit, texts of a form, faults in words of ours."""
