"""Errors of cybozu.com: JSON with an error code, and HTML pages of a gateway."""

from __future__ import annotations

import secrets
from typing import Any

from meibo_simulators.cybozu.switches import Switches

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
# The messages in Japanese and English. The codes are not documented. Sources:
# https://kb.kintoneapp.com/user/errors.html and https://help.cybozu.cn/general/en/login/unlock.html
ACCOUNT_STATES = {
    "locked": (
        "10回以上パスワードを間違えたため、アカウントがロックアウトされました。管理者に連絡してください。",
        "Your account is locked out due to 10 times wrong password attempts. Contact your administrator.",
    ),
    "password expired": ("パスワードの有効期限が切れています。", "Your password has expired."),
}


class CybozuError(Exception):
    """An error response of the API. ``texts`` are the messages in Japanese and English if the code has several."""

    def __init__(
        self,
        code: str,
        errors: dict[str, Any] | None = None,
        *,
        status: int | None = None,
        headers: dict[str, str] | None = None,
        texts: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.errors = errors
        self.status = status or ERRORS[code][0]
        self.texts = texts or ERRORS[code][1:]
        self.headers = {"X-Cybozu-Error": code, **(headers or {})}

    def body(self, switches: Switches) -> dict[str, Any]:
        """Return the body in the language of the switches, with the text in ``message`` or ``reason``."""
        text = self.texts[switches.language == "en"]
        name = "message" if switches.error_message else "reason"
        body = {name: text, "id": secrets.token_urlsafe(15), "code": self.code}
        return body if self.errors is None else {**body, "errors": self.errors}


class PageError(Exception):
    """An error response of a gateway before the API: an HTML page or a redirect."""

    def __init__(self, status: int, title: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(title)
        self.status = status
        self.headers = headers or {}
        self.page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body>{title}</body></html>"


def invalid(field: str, message: str) -> CybozuError:
    """Return the error response to an invalid parameter."""
    return CybozuError("CB_VA01", {field: {"messages": [message]}})
