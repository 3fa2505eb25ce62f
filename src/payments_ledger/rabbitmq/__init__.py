"""RabbitMQ: publishing with confirms, consuming with acknowledgements after the commit."""
