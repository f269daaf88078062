"""Products as a collection, so that SQL, the shell and tuning know them. Written by

    pgvec collection register products --text description --id sku --keywords --revision

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.migrate_pgvec()
    op.register_table(
        "products",
        text="description",
        id="sku",
        keywords=True,
        model={
            "name": "sentence-transformers/all-MiniLM-L6-v2",
            "fingerprint": "af7f19fb29ac5cd5a06ac12823a5154ae4eaa6f07673ca94b3d0d87999e8e892",
            "dimensions": 384,
            "max_tokens": 254,
            "details": {
                "weights": "388f23699e67e2909c53af2cb2a1aeaa4d829315ea706fdc561f1976037d24ea",
                "tokenizer": "5154c7ed32fcc22b016c18d51956aa5f28a4786d2191869d37b93d1300c01366",
                "modules": ["Transformer", "Pooling pooling_mode=mean include_prompt=True", "Normalize"],
                "prompts": {"query": "", "document": ""},
                "max_tokens": 254,
                "normalized": True,
            },
        },
    )


def downgrade() -> None:
    op.unregister_table("products")
