"""What a tenant's jobs may reach: folders, hosts, databases."""
