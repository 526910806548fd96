"""Export: documents to Markdown files and JSONL."""
