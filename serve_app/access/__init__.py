"""Access control: API keys and scopes, signed links, limits of tenants. Values and rules; the rows are in `jobs`."""
