"""The built-in domain: the Python standard library, read from the interpreter that runs Jupiter."""

from jupiter.domains.python_stdlib.documents import published_documents

__all__ = ["published_documents"]
