"""Speed profiles (exact, fast, turbo). Entry point: `accelerator.Accelerator`; docs/performance.md has the figures."""
