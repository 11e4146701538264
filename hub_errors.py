"""What the Hub and the way to it refuse, in one line that says what to do, and never with the token in it."""

import contextlib
import json
import re
import textwrap
from collections.abc import Iterator

from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx, parse_ratelimit_headers

_AGAIN = "nothing is half-published: run the same command again, and what is there already is not sent twice"
_FULL = "expected room on the Hub for these files, got none left; free some, or publish elsewhere"
_MOVED = "someone else has pushed there meanwhile; look at what, and run the same command again"
_WORDS = {
    401: "expected a token that the Hub knows, got one that it refuses; run `hf auth login`, or correct HF_TOKEN",
    403: "expected the right to write there, got none; use a token with write access, or choose another name",
    404: "expected a repository and a revision that are there, got none that this token may see",
    409: _MOVED,
    412: _MOVED,
    413: _FULL,
    507: _FULL,
}
# The client's words for the first of the files that the Hub will not store.
_FULL_SAID = re.compile(r"LFS batch API returned errors[^`]*`(.*)")
# The Hub's words, with status 403, for an account that has no room for private files.
_LIMIT = "storage limit reached"


def require_token() -> str:
    """The user's token: of HF_TOKEN, or of `hf auth login`.

    Raises:
        ValueError: If there is none, or none that can be sent. A client would show it in its own message.
    """
    token = get_token()
    if not token:
        raise ValueError("expected a token of the Hub, found none; run `hf auth login`, or set HF_TOKEN")
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError(
            "expected a token of the Hub of letters, digits and signs, got one with something else in it; copy it "
            "again into HF_TOKEN or `hf auth login`"
        )
    return token


@contextlib.contextmanager
def in_one_line(repo_id: str, token: str) -> Iterator[None]:
    """Raise OSError with one line for what the Hub refuses, or the network.

    Args:
        repo_id: What is published, for the message.
        token: Kept out of it, even where a server sends it back.

    Raises:
        ValueError: What is raised so within, in one line too.
    """
    try:
        yield
    # Without the client's own error behind it, which may show the token.
    except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, json.JSONDecodeError) as error:
        raise OSError(_one_line(f"{repo_id}: {_in_words(_reason(error))}", token)) from None
    except ValueError as error:
        said = _FULL_SAID.match(str(error))
        if said:
            raise OSError(_one_line(f"{repo_id}: {_FULL} (the Hub says: {said[1]})", token)) from None
        raise ValueError(_one_line(str(error), token)) from None


def _one_line(words: str, token: str) -> str:
    return " ".join(words.split()).replace(token, "[token]")


def _reason(error: BaseException) -> BaseException:
    """What stopped the upload of a file: the client wraps it."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _in_words(error: BaseException) -> str:
    if isinstance(error, HfHubHTTPError):
        return _refusal(error)
    if isinstance(error, httpx.TransportError):
        return f"expected a network that stays, lost the Hub ({type(error).__name__}: {error}); {_AGAIN}"
    if isinstance(error, json.JSONDecodeError):
        return "expected an answer of the Hub, got something else; look at HF_ENDPOINT and at proxies"
    return f"the upload failed ({type(error).__name__}: {error}); {_AGAIN}"


def _refusal(error: HfHubHTTPError) -> str:
    status, said = error.response.status_code, error.server_message or ""
    if status == 429:
        words = f"the Hub asks to wait {_waiting(error.response.headers)}; {_AGAIN}"
    elif _LIMIT in said:
        words = _FULL
    elif status >= 500:
        words = _WORDS.get(status, f"the Hub has trouble (HTTP status {status}); {_AGAIN}")
    else:
        words = _WORDS.get(status, f"the Hub refuses this (HTTP status {status})")
    return words + (f" (the Hub says: {textwrap.shorten(said, 200)})" if said else "")


def _waiting(headers: httpx.Headers) -> str:
    limit, after = parse_ratelimit_headers(headers), headers.get("Retry-After", "")
    # Every answer tells the limit, also where it is not what was reached.
    if limit is not None and limit.remaining == 0:
        return f"{limit.reset_in_seconds} s"
    return f"{after} s" if after.isdigit() else "a while"
