"""From files and records to rows: read, chunk, embed, COPY, keep the ledger."""
