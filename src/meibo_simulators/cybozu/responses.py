"""Responses of cybozu.com: JSON, errors with a ``CB_`` code, and HTML pages of a gateway."""

from __future__ import annotations

import json
import secrets
from typing import Any

from flask import Response

# code -> (status, Japanese, English)
ERRORS = {
    "CB_AU01": (401, "ログインしてください。", "Please login."),
    "CB_WA01": (
        401,
        "ユーザーのパスワード認証に失敗しました。「X-Cybozu-Authorization」ヘッダーの値が正しくありません。",
        "Password authentication failed. The value in http header of X-Cybozu-Authorization is not valid.",
    ),
    "CB_NO02": (403, "権限がありません。", "No privilege to proceed."),
    "CB_VA01": (400, "入力内容が正しくありません。", "Missing or invalid input."),
    "CB_IJ01": (400, "不正なJSON文字列です。", "Invalid JSON string."),
    "GAIA_TO04": (429, "同時接続数の上限を超えました。", "Too many concurrent requests."),
}
AUTHENTICATION_CODES = frozenset({"CB_AU01", "CB_WA01"})


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
        self.code = code
        self.errors = errors
        self.status = status if status is not None else ERRORS[code][0]
        self.headers = headers or {}

    def response(self, language: str, *, message: bool = True) -> Response:
        """Return the JSON response in a language."""
        text = ERRORS[self.code][1 if language == "ja" else 2]
        body: dict[str, Any] = {"message" if message else "reason": text}
        body |= {"id": secrets.token_urlsafe(15), "code": self.code}
        if self.errors is not None:
            body["errors"] = self.errors
        return answer(body, self.status, {"X-Cybozu-Error": self.code, **self.headers})


class PageError(Exception):
    """An error response of a gateway before the API: an HTML page or a redirect."""

    def __init__(self, status: int, title: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.headers = headers or {}

    def response(self) -> Response:
        """Return the HTML response."""
        page = f"<!DOCTYPE html><html><head><title>{self.title}</title></head><body>{self.title}</body></html>"
        return Response(page, self.status, self.headers, content_type="text/html; charset=utf-8")


def invalid(field: str, message: str) -> CybozuError:
    """Return the error response of an invalid parameter."""
    return CybozuError("CB_VA01", {field: {"messages": [message]}})


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response in cybozu.com's format."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    response = Response(text, status, content_type="application/json;charset=utf-8")
    response.headers.extend(headers or {})
    return response
