"""What a child process inherits: the variables that it needs, no other secret, and the umask.

A group is a tuple of names, or of beginnings of names that end in ``*``.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

UMASK = 0o077
"""Of every process of an installation: its files are for its own account."""

SYSTEM = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*", "SSL_CERT_*", "MALLOC_*", "GLIBC_TUNABLES"),
)
"""Of any program."""

PYTHON = ("PYTHON*", "VIRTUAL_ENV")
"""Of any program in Python."""

COMPUTE = (
    *(
        "CUDA*",
        "CUBLAS*",
        "CUDNN*",
        "NVIDIA_*",
        "NCCL_*",
        "GLOO_*",
        "UCX_*",
        "FI_*",
        "ROCR_*",
        "HIP_*",
        "HSA_*",
    ),
    *("OMP_*", "MKL_*", "KMP_*", "GOMP_*", "OPENBLAS_*", "ONEDNN_*", "DNNL_*", "ATEN_*"),
    *("TORCH*", "PYTORCH_*", "TRITON_*", "ACCELERATE_*", "DEEPSPEED_*", "DS_*"),
    *("TRANSFORMERS_*", "TOKENIZERS_*", "SAFETENSORS_*", "XDG_CACHE_HOME"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_MODULES_CACHE"),
)
"""Of a program that runs models from local folders."""

NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""Of a program that speaks to other hosts; a proxy's URL may hold a password."""

HUB = ("HF_*", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_*")
"""Of a program that reads from the hub; with its token."""

OBJECTS = ("AWS_*",)
"""Of a program that reads and writes objects; with the keys of S3."""


def chosen(variables: Mapping[str, str], *groups: tuple[str, ...]) -> dict[str, str]:
    """The variables of these groups."""
    patterns = [pattern for group in groups for pattern in group]
    return {
        name: value
        for name, value in variables.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
