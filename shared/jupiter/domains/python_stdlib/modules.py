"""The modules whose reference entries make the domain.

Owns: the list. Does not know: what is read from them.
"""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

__all__ = ["MODULE_NAMES", "import_quietly"]

MODULE_NAMES: tuple[str, ...] = tuple(
    ["os", "os.path", "shutil", "glob", "fnmatch", "tempfile", "json", "csv", "configparser", "textwrap", "string", "re", "difflib", "unicodedata", "struct", "codecs", "datetime", "calendar", "collections", "collections.abc", "heapq", "bisect", "array", "copy", "pprint", "reprlib", "enum", "numbers", "math", "cmath", "decimal", "fractions", "random", "statistics", "itertools", "functools", "operator", "pathlib", "stat", "filecmp", "fileinput", "pickle", "pickletools", "copyreg", "shelve", "marshal", "dbm", "sqlite3", "zlib", "gzip", "bz2", "lzma", "zipfile", "tarfile", "netrc", "plistlib", "hashlib", "hmac", "secrets", "io", "time", "argparse", "getopt", "logging", "logging.handlers", "getpass", "platform", "errno", "ctypes", "threading", "multiprocessing", "concurrent.futures", "subprocess", "sched", "queue", "contextvars", "asyncio", "socket", "ssl", "select", "selectors", "signal", "mmap", "email", "email.message", "email.utils", "mailbox", "mimetypes", "base64", "binascii", "quopri", "html", "html.parser", "xml.etree.ElementTree", "xml.dom.minidom", "xml.sax", "webbrowser", "wsgiref.util", "urllib.parse", "urllib.request", "urllib.error", "urllib.robotparser", "http", "http.client", "http.cookies", "http.cookiejar", "http.server", "ftplib", "poplib", "imaplib", "smtplib", "uuid", "socketserver", "xmlrpc.client", "ipaddress", "wave", "colorsys", "gettext", "locale", "cmd", "shlex", "typing", "pydoc", "doctest", "unittest", "unittest.mock", "timeit", "trace", "tracemalloc", "cProfile", "pstats", "pdb", "bdb", "faulthandler", "venv", "zipapp", "sys", "sysconfig", "builtins", "warnings", "dataclasses", "contextlib", "abc", "atexit", "traceback", "gc", "inspect", "site", "code", "codeop", "zipimport", "pkgutil", "modulefinder", "runpy", "importlib", "importlib.util", "importlib.metadata", "importlib.resources", "ast", "symtable", "token", "keyword", "tokenize", "tabnanny", "pyclbr", "py_compile", "compileall", "dis", "graphlib", "types", "weakref", "linecache", "rlcompleter", "pwd", "grp", "termios", "tty", "pty", "fcntl", "resource", "syslog", "optparse", "zoneinfo", "tomllib"]
)


def import_quietly(name: str) -> ModuleType | None:
    """Return the module, or None where this interpreter has not got it (Windows, a build without sqlite)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            return None
