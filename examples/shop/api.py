"""The shop's search, for an event loop: uvicorn api:app."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from models import Product
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import contains_eager

from pgvec_toolkit import orm

engine = orm.async_engine()
Session = async_sessionmaker(engine)
app = FastAPI(title="The shop")


@app.get("/search")
async def search(text: str, colour: str | None = None, below: float | None = None, k: int = 10) -> list[dict[str, Any]]:
    """Return the products nearest in meaning to a text."""
    statement = orm.nearest(Product, text, k=k).join(Product.category).options(contains_eager(Product.category))
    if colour is not None:
        statement = statement.where(Product.colour == colour)
    if below is not None:
        statement = statement.where(Product.price < below)
    async with Session() as session:
        return [
            {"sku": product.sku, "name": product.name, "category": product.category.name, "similarity": round(near, 2)}
            for product, _, near in await session.execute(statement)
        ]
