"""Tables with columns of all kinds, made from a seed."""

import numpy as np
import pandas as pd


def passengers(rows=400, seed=0):
    """Who survived: numbers, text, categories, truth, dates, missing values, a constant, and names."""
    rng = np.random.default_rng(seed)
    age = np.round(rng.gamma(6, 5, rows), 1)
    sex = rng.choice(["female", "male"], rows)
    deck = rng.choice(list("ABCD"), rows, p=[0.5, 0.3, 0.195, 0.005])
    fare = np.round(rng.lognormal(3, 1, rows), 2)
    alone = rng.random(rows) < 0.5
    score = 2.5 * (sex == "female") - 0.05 * age + 0.5 * np.log(fare) + (deck == "A") - 1
    frame = pd.DataFrame(
        {
            "name": [f"passenger {i}" for i in range(rows)],
            "age": np.where(rng.random(rows) < 0.2, np.nan, age),
            "sex": sex,
            "deck": np.where(rng.random(rows) < 0.3, None, deck),
            "fare": fare,
            "class": pd.Categorical(rng.integers(1, 4, rows)),
            "alone": alone,
            "ship": "Titanic",
            "boarded": pd.Timestamp("1912-04-10 08:00") + pd.to_timedelta(rng.integers(0, 96, rows), "h"),
            "survived": np.where(score + rng.normal(0, 0.5, rows) > 0, "yes", "no"),
        }
    )
    return frame


def prices(rows=600, seed=0):
    """A quantity far from 0, by two numbers and a text."""
    rng = np.random.default_rng(seed)
    size, year = rng.uniform(20, 200, rows), rng.integers(1950, 2020, rows)
    town = rng.choice(["Bern", "Biel", "Thun"], rows)
    extra = pd.Series(town).map({"Bern": 90_000, "Biel": 20_000, "Thun": 50_000}).to_numpy()
    price = 3000 * size + 900 * (year - 1950) + extra + rng.normal(0, 2000, rows)
    return pd.DataFrame({"size": size, "year": year, "town": town, "price": price})
