"""Open Data Product Standard 1.0: read a product's YAML document, write one, lose nothing on the way."""

from flyball.wire.odps.documents import Product, read_product, write_product

__all__ = ["Product", "read_product", "write_product"]
