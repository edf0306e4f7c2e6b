"""From the bytes of a LoRA file to the changes that it means."""
