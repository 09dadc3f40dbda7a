"""Errors of cybozu.com: JSON with a ``CB_`` code, and HTML pages of a gateway."""

from __future__ import annotations

import secrets
from typing import Any

# code -> (status, message)
ERRORS = {
    "CB_AU01": (401, "ログインしてください。"),
    "CB_WA01": (
        401,
        "ユーザーのパスワード認証に失敗しました。「X-Cybozu-Authorization」ヘッダーの値が正しくありません。",
    ),
    "CB_NO02": (403, "権限がありません。"),
    "CB_VA01": (400, "入力内容が正しくありません。"),
    "CB_IJ01": (400, "不正なJSON文字列です。"),
    "GAIA_TO04": (429, "同時接続数の上限を超えました。"),
}


class CybozuError(Exception):
    """An error response of the API."""

    def __init__(
        self,
        code: str,
        errors: dict[str, Any] | None = None,
        *,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        default_status, message = ERRORS[code]
        self.status = status or default_status
        self.headers = {"X-Cybozu-Error": code, **(headers or {})}
        self.body: dict[str, Any] = {"message": message, "id": secrets.token_urlsafe(15), "code": code}
        if errors is not None:
            self.body["errors"] = errors


class PageError(Exception):
    """An error response of a gateway before the API: an HTML page or a redirect."""

    def __init__(self, status: int, title: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(title)
        self.status = status
        self.headers = headers or {}
        self.page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body>{title}</body></html>"


def invalid(field: str, message: str) -> CybozuError:
    """Return the error response of an invalid parameter."""
    return CybozuError("CB_VA01", {field: {"messages": [message]}})
