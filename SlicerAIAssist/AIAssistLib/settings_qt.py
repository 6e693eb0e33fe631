"""What the extension remembers between sessions, and the home that follows from it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, urlsplit

import qt
import slicer

from aiassist import __version__
from aiassist.commands.shared import login
from aiassist.errors import AIAssistError
from AIAssistLib.assistant import Home
from AIAssistLib.homes_qt import Server, ThisComputer
from AIAssistLib.launch import backend_command, slicer_python

#: The homes by their names in the settings.
COMPUTER, SERVER, SLICER = "computer", "server", "slicer"
#: The choice that is remembered: the folder where a file was written last.
EXPORTS = "exports"
#: What Windows takes in no name of a file.
_REFUSED = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


class Settings:
    """Slicer's settings file, section ``AIAssist``.

    A token is written there, which is plain text, only when the person says so; else it goes with this object. It is
    never in scenes or logs.
    """

    def __init__(self):
        self._tokens: dict[str, str] = {}
        #: Whether this computer is used while the home that is remembered cannot be.
        self.stands_in = False

    def _get(self, key: str, default: str = "") -> str:
        value = qt.QSettings().value(f"AIAssist/{key}")
        return default if value is None else str(value)

    def _set(self, key: str, value: str) -> None:
        qt.QSettings().setValue(f"AIAssist/{key}", value)

    @property
    def where(self) -> str:
        """Which home is used: "computer", "server" or "slicer"."""
        where = self._get("where", COMPUTER)
        return where if where in (COMPUTER, SERVER, SLICER) and not self.stands_in else COMPUTER

    @where.setter
    def where(self, value: str) -> None:
        self.stands_in = False
        self._set("where", value)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._get("url")

    @url.setter
    def url(self, value: str) -> None:
        self._set("url", value.strip())

    def token(self, url: str) -> str:
        """The token for a server; empty when it is not known, or not any more."""
        return self._tokens.get(_key(url)) or self._get(f"token/{_key(url)}")

    def remembers(self, url: str) -> bool:
        """Whether the token for a server is in the settings file."""
        return bool(self._get(f"token/{_key(url)}"))

    def set_token(self, url: str, token: str, remember: bool) -> None:
        """Use a token for a server from now on; it outlives this session only to `remember`."""
        self._tokens[_key(url)] = token.strip()
        if remember:
            self._set(f"token/{_key(url)}", token.strip())
        else:
            qt.QSettings().remove(f"AIAssist/token/{_key(url)}")

    def allowed(self, url: str) -> bool:
        """Whether images may go to a server; asked once for each."""
        return self._get(f"allowed/{_key(url)}") == "yes"

    def allow(self, url: str) -> None:
        """Remember that images may go to a server."""
        self._set(f"allowed/{_key(url)}", "yes")

    def place(self, folder: Path) -> tuple[Path | None, bool]:
        """The image of a folder that was opened last, by a file of it, and whether its labels were saved then."""
        file, is_saved = self._get(f"place/{_folder_key(folder)}"), self._get(f"done/{_folder_key(folder)}")
        return (Path(file) if file else None), is_saved == "yes"

    def set_place(self, folder: Path, file: Path, is_saved: bool) -> None:
        """Remember which image of a folder was opened last."""
        self._set(f"place/{_folder_key(folder)}", str(file))
        self._set(f"done/{_folder_key(folder)}", "yes" if is_saved else "no")

    def choice(self, key: str) -> str:
        """What was chosen in the panel last time, such as the list of structures; empty when nothing was."""
        return self._get(f"choice/{key}")

    def set_choice(self, key: str, value: str) -> None:
        """Remember what was chosen in the panel."""
        self._set(f"choice/{key}", value)

    def path_for(self, name: str) -> str:
        """Where a file of this name is proposed to go: in the folder that was used last, or else at home.

        What no system, Windows included, takes in the name of a file is replaced.
        """
        last = self.choice(EXPORTS)
        folder = Path(last) if last and Path(last).is_dir() else Path.home()
        return str(folder / _REFUSED.sub("_", name).strip())

    def note_written(self, path: Path) -> None:
        """The next file is proposed to go where this one is."""
        self.set_choice(EXPORTS, str(path.parent))

    @property
    def author(self) -> str:
        """Whose labels are saved when no server knows better: who was entered, or Slicer's user, or the login's."""
        return self._get("author") or slicer.app.applicationLogic().GetUserInformation().GetName() or login()

    @author.setter
    def author(self, value: str) -> None:
        self._set("author", value.strip())

    @property
    def folder(self) -> Path:
        """Where packages and the labels saved on this computer live: beside Slicer's own settings."""
        return Path(slicer.app.slicerUserSettingsFilePath).parent / "AIAssist"

    @property
    def packages(self) -> Path:
        """The private folder of what Slicer lacks, for this version of Slicer and of the extension."""
        return self.folder / f"packages-{slicer.app.majorVersion}.{slicer.app.minorVersion}-{__version__}"

    @property
    def studies(self) -> Path:
        """The studies folder of this computer."""
        return self.folder / "studies"

    def remembered_home(self) -> Home:
        """The home that is remembered; while it cannot be used, this computer, whose name says why.

        It stays remembered, and the next call tries it again.
        """
        self.stands_in = False
        try:
            return self.home()
        except AIAssistError as error:
            if self.where == COMPUTER:
                raise
            self.stands_in = True
            home = self.home()
            home.name = f"{home.name} ({str(error).removesuffix('.')})"
            return home

    def home(self, where: str | None = None, url: str | None = None, studies: Path | None = None) -> Home:
        """The home of a name, or the one that is remembered. `AIAssistError` when it cannot be used.

        What this computer keeps goes into another folder than `studies` when one is given.
        """
        where, url = where or self.where, url or self.url
        if where == SERVER and url:
            return Server(url, self.token(url) or None)
        python = slicer_python(slicer.app.slicerHome)
        has_models = where != SLICER
        studies = studies or self.studies
        command = backend_command(python, self.packages, studies, author=self.author, has_models=has_models)
        computer = ThisComputer(*command)
        if has_models:
            return computer
        from aiassist.segmenters.model_store import MODELS
        from AIAssistLib.this_slicer import ThisSlicer, device

        return ThisSlicer(computer, device(), studies / MODELS)


def _folder_key(folder: Path) -> str:
    return quote(str(folder), safe="")


def _key(url: str) -> str:
    """An address as the name of a setting, one for all ways to write it."""
    try:
        parts = urlsplit(url.strip() if "//" in url else f"http://{url.strip()}")
    except ValueError:  # one that is being typed
        return quote(url, safe="")
    return quote(f"{parts.scheme}://{parts.netloc.lower()}{parts.path}".rstrip("/"), safe="")
