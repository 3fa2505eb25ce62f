"""The books as other programs read them: Beancount, hledger, CSV and Parquet."""
