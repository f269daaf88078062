"""Invents what the shop sells: 500 designs, each in ten colours; the same ones every time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

# Category: what is sold in it, from about which price on, and what it is for.
_RANGE: dict[str, tuple[dict[str, int], list[str]]] = {
    "Clothing": (
        {"jacket": 80, "pullover": 45, "shirt": 25, "trousers": 50, "coat": 120, "cap": 15, "gloves": 18, "scarf": 20},
        ["keeps you dry in heavy rain", "keeps you warm in winter", "for running on hot days", "for the office",
         "for long walks in the mountains", "for cycling at night, with reflecting seams", "soft enough for babies"],
    ),
    "Footwear": (
        {"boots": 110, "trainers": 70, "sandals": 35, "slippers": 20, "wellingtons": 40},
        ["for muddy paths", "for running a marathon", "for the beach", "for standing all day", "for icy pavements"],
    ),
    "Camping": (
        {"tent": 160, "sleeping bag": 90, "stove": 55, "rucksack": 85, "lantern": 25, "water bottle": 15},
        ["for two people and a dog", "for nights below zero", "light enough to carry for weeks",
         "sets up in a minute", "survives a storm", "for a weekend at a festival"],
    ),
    "Kitchen": (
        {"pan": 45, "knife": 35, "kettle": 40, "mug": 9, "bowl": 12, "chopping board": 22, "coffee grinder": 60},
        ["for people who bake bread", "for strong coffee in the morning", "safe for small children",
         "lasts a lifetime", "goes into the dishwasher", "for cooking with little fat"],
    ),
    "Garden": (
        {"spade": 30, "watering can": 18, "hammock": 65, "bird feeder": 16, "lawn mower": 190, "flower pot": 8},
        ["for a balcony without sun", "quiet enough for Sundays", "for growing tomatoes", "brings birds to the window",
         "for lazy afternoons", "for heavy clay soil"],
    ),
    "Desk": (
        {"lamp": 35, "chair": 140, "notebook": 7, "keyboard": 75, "headphones": 95, "monitor stand": 30},
        ["for calls from a noisy room", "for people with back pain", "for writing by hand", "for reading late",
         "for a tiny flat", "for gaming all night"],
    ),
}  # fmt: skip
_MATERIALS = ["wool", "cotton", "recycled plastic", "oak", "bamboo", "steel", "titanium", "leather", "linen", "cork"]
_MANNERS = ["handmade in small numbers", "designed by climbers", "mended free of charge", "a classic since 1954",
            "made without glue", "our best seller", "tested by nurses on night shifts"]  # fmt: skip
_COLOURS = ["black", "white", "grey", "red", "orange", "yellow", "green", "blue", "violet", "brown"]
DESIGNS = 500


@dataclass(frozen=True)
class Article:
    """One thing to sell; articles of a design share its description."""

    sku: str
    name: str
    description: str
    category: str
    colour: str
    price: Decimal
    in_stock: bool


def articles() -> Iterator[Article]:
    """Yield 5,000 articles."""
    chance = random.Random(1954)
    possible = [
        (category, thing, price, purpose, material)
        for category, (things, purposes) in _RANGE.items()
        for thing, price in things.items()
        for purpose, material in itertools.product(purposes, _MATERIALS)
    ]
    for number, (category, thing, price, purpose, material) in enumerate(chance.sample(possible, DESIGNS), 1):
        description = f"{thing.capitalize()} of {material}, {purpose}; {chance.choice(_MANNERS)}."
        base = price * chance.uniform(0.7, 2.5)
        for colour in _COLOURS:
            yield Article(
                sku=f"{category[:2]}-{number:03}-{colour}".upper(),
                name=f"{material.capitalize()} {thing}, {colour}",
                description=description,
                category=category,
                colour=colour,
                price=Decimal(f"{base * chance.uniform(0.9, 1.1):.2f}"),
                in_stock=chance.random() < 0.8,
            )
