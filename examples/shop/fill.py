"""Fills the shop: 5,000 products, whose 500 descriptions are embedded when they are flushed, each once."""

from __future__ import annotations

import goods
from database import Session
from models import Category, Product
from sqlalchemy import func, select


def fill() -> None:
    """Write all products, and say how many there are."""
    with Session.begin() as session:
        categories: dict[str, Category] = {}
        for article in goods.articles():
            category = categories.setdefault(article.category, Category(name=article.category))
            session.add(
                Product(
                    sku=article.sku,
                    name=article.name,
                    description=article.description,
                    colour=article.colour,
                    price=article.price,
                    in_stock=article.in_stock,
                    category=category,
                )
            )
    with Session() as session:
        found = session.execute(select(func.count(Product.embedding), func.count(Product.description.distinct())))
        print("{} products, {} descriptions".format(*found.one()))


if __name__ == "__main__":
    fill()
