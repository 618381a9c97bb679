"""Tables in parquet, JSON lines and Excel files, as DataFrames with dtypes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastbp.tables import cells
from fastbp.tables.columns import ROWS_AT_ONCE, named_frame
from fastbp.tables.wording import DataError, listed

BYTES_AT_ONCE = 1 << 16  # of each column of a parquet file, before they are unpacked
CELLS_AT_ONCE = 500_000  # of a parquet file


def parquet_names(path: str) -> list[str]:
    """Of its columns, without reading any rows."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    try:
        return [*named_frame(read_schema(path).empty_table().to_pandas()).columns]
    except ArrowException as error:
        raise _unreadable(path, error) from error


def parquet_pieces(path: str, names: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
    """names: of the columns to read; None: all."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    start = 0
    try:
        # Neither all of the file nor a whole group of rows, which may be all of it, is read at once.
        with ParquetFile(path, pre_buffer=False, buffer_size=BYTES_AT_ONCE) as file:
            rows = max(1, min(ROWS_AT_ONCE, CELLS_AT_ONCE // max(1, file.metadata.num_columns)))
            for batch in file.iter_batches(rows, columns=names, use_threads=False):
                yield start, named_frame(batch.to_pandas())
                start += batch.num_rows
            if not start:
                yield 0, named_frame(file.schema_arrow.empty_table().to_pandas())
    except ArrowException as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}")


def line_pieces(path: str) -> Iterator[tuple[int, Any]]:
    import pandas

    start, names = 0, None
    options: dict[str, Any] = {"dtype": False}
    if pandas.__version__.startswith("2."):  # later versions convert no dates where no dtypes are wanted
        options["convert_dates"] = False
    with pandas.read_json(path, lines=True, chunksize=ROWS_AT_ONCE, **options) as reader:
        for frame in reader:
            names = [*frame.columns] if names is None else names
            unknown = [str(name) for name in frame.columns if name not in names]
            if unknown:
                raise DataError(
                    f"{path} has rows with {listed(unknown)}, which none of the first {ROWS_AT_ONCE:,} has"
                )
            yield start, named_frame(frame.reindex(columns=names))
            start += len(frame)
    if names is None:
        raise DataError(f"{path} is empty: a JSON object in each line is expected")


def excel_sheet(path: str) -> Any:
    import pandas

    return pandas.read_excel(
        path, sheet_name=0, keep_default_na=False, na_values=["", *sorted(cells.MISSING)]
    )
