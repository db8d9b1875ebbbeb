"""Download one file from a Hub repository, with errors that say how to fix the problem."""

from __future__ import annotations

import http.client
import time
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

from partzoo.addresses import answers
from partzoo.errors import WeightsError

ANSWER_SECONDS = 9.0  # a third of it for the connection, so that a machine without a network is known within 3 s
REMEMBERED_SECONDS = 60.0


class HubOptions(TypedDict, total=False):
    """Options of :func:`partzoo.load` that are passed on to :func:`hub_file`, with the same meaning."""

    revision: str | None
    cache_dir: str | Path | None
    local_files_only: bool


def hub_file(
    repo: str,
    filename: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    cached_first: bool = False,
    force: bool = False,
    name: str = "",
) -> Path:
    """Return a file of a Hub repository, from the Hugging Face cache or downloaded from the Hub.

    Args:
        repo: ``owner/name``.
        filename: path of the file in the repository.
        revision: branch, tag or commit; None uses ``main``. A cached commit needs no request.
        cache_dir: folder of the Hugging Face cache; None uses the default folder.
        local_files_only: whether to forbid network requests.
        cached_first: whether to use a cached revision without a request, even if it is a branch.
        force: whether to download the file again.
        name: name of the weights in error messages.

    Returns:
        Path of the file in the cache.

    Raises:
        FileNotFoundError: the repository does not have the file.
        WeightsError: the file cannot be downloaded; the message gives the reason and the fix.
    """
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub import errors as hub

    where = f"{filename} of {repo}" + (f"@{revision}" if revision else "")
    name = name or f"hf-hub:{repo}"
    offline = local_files_only or constants.HF_HUB_OFFLINE
    try:
        if cached_first and not force:
            cached = try_to_load_from_cache(repo, filename, cache_dir=cache_dir, revision=revision)
            if isinstance(cached, str):
                return Path(cached)
        # The client would try again for minutes, and its waits for one byte are as long as its waits for all.
        reached = not offline and hub_answers(hf_hub_url(repo, filename, revision=revision))
        if force and not reached:
            raise hub.LocalEntryNotFoundError(where)
        try:
            fetched = hf_hub_download(
                repo,
                filename,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=not reached,
                force_download=force,
            )
        except ValueError as error:  # with force_download, the client hides the reason behind one
            raise error.__cause__ or error from None
        return Path(fetched)
    except hub.LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, hub_errors()) and (status := _status(error.__cause__)):
            raise _refused(where, status) from error
        why = "offline mode is on (HF_HUB_OFFLINE, local_files_only)" if offline else "the Hub is out of reach"
        raise WeightsError(
            f"Weights of {name} ({where}) are not in {cache_dir or constants.HF_HUB_CACHE} and {why}: run "
            f"'partzoo download {name}' on a connected machine and copy its HF_HOME, or pass the path of a "
            ".safetensors file."
        ) from error
    except hub.GatedRepoError as error:
        raise WeightsError(f"{repo} is gated: accept its terms on the Hub, then set HF_TOKEN.") from error
    except hub.RepositoryNotFoundError as error:
        raise WeightsError(
            f"The Hub has no repository {repo!r}, or it is private: check the name, or set HF_TOKEN."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise WeightsError(f"{repo} has no revision {revision!r}: check revision=.") from error
    except hub.EntryNotFoundError as error:
        raise FileNotFoundError(f"The Hub has no {where}") from error
    except hub.HFValidationError as error:
        raise WeightsError(f"{repo!r} is not the name of a Hub repository: write hf-hub:owner/name.") from error
    except hub_errors() as error:
        if status := _status(error):
            raise _refused(where, status) from error
        if isinstance(error, OSError) and error.filename is not None:
            folder = cache_dir or constants.HF_HUB_CACHE
            raise WeightsError(f"{folder} cannot be written ({error}): pass cache_dir=, or set HF_HOME.") from error
        raise WeightsError(
            f"{where} cannot be downloaded ({first_line(error)}): try again, or check HF_ENDPOINT."
        ) from error


def _status(error: Exception) -> int:
    """Return the HTTP status of the response that an error is about, 0 if there was none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _refused(where: str, status: int) -> WeightsError:
    advice = {
        401: "check HF_TOKEN",
        403: "ask for access, or check HF_TOKEN",
        429: "wait a few minutes, or set HF_TOKEN",
    }
    advised = advice.get(status, "try again later" if status >= 500 else "check HF_ENDPOINT")
    answer = f"{status} {http.client.responses.get(status, '')}".strip()
    return WeightsError(f"{where} cannot be downloaded: the Hub answers {answer}; {advised}.")


_asked: dict[str, tuple[float, bool]] = {}  # by host: when it was asked for an answer, and whether it gave one


def hub_answers(url: str) -> bool:
    """Return whether the Hub answers; what was found is remembered for a minute."""
    host = urlsplit(url).netloc
    when, found = _asked.get(host, (float("-inf"), False))
    if time.monotonic() - when > REMEMBERED_SECONDS:
        found = answers(url, ANSWER_SECONDS)
        _asked[host] = time.monotonic(), found
    return found


def hub_errors() -> tuple[type[Exception], ...]:
    """Return the error classes of the HTTP library that the installed version of huggingface_hub uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return tuple(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().partition("\n")[0]
