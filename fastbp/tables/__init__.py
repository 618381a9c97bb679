"""Tables: from a DataFrame or a file to a network that predicts on the next one. See README.md here."""

from fastbp.tables.columns import Columns
from fastbp.tables.model import TableModel, load
from fastbp.tables.training import train_table
from fastbp.tables.wording import DataError

__all__ = ["Columns", "DataError", "TableModel", "load", "train_table"]
