"""Erases a person for `flujo purge --subject`: the confirmation, and the proof as a table or as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.cli.confirmation import require_yes
from flujo.cli.run_command import in_workspace
from flujo.domain.commands import command
from flujo.domain.wording import plural
from flujo.exceptions import SettingsError
from flujo.services.admin.erasure import Paused, erasable, erase, read_subject
from flujo.services.inspection.formatting import as_json as formatted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flujo.cli.invocation import Invocation
    from flujo.cli.terminal import Terminal
    from flujo.domain.acts import Actor
    from flujo.domain.erasure import Family, Proof
    from flujo.services.workspace import Workspace

_COLUMNS = {"table": "TABLE", "looked_at": "LOOKED AT", "removed": "REMOVED", "kept": "KEPT", "why": "WHY"}


@dataclass(frozen=True)
class Erasure:
    """What the options of the command ask for."""

    cancel_paused: bool
    keep_paused: bool
    vacuum_full: bool
    proof_file: Path | None

    @property
    def paused(self) -> Paused | None:
        """What happens to runs that wait; None when no option says it.

        Raises:
            SettingsError: two options say different things.
        """
        if self.cancel_paused and self.keep_paused:
            raise SettingsError("`--cancel-paused` and `--keep-paused` exclude each other", hint="give one")
        return Paused.CANCEL if self.cancel_paused else Paused.KEEP if self.keep_paused else None


def erase_person(
    invocation: Invocation,
    text: str,
    wanted: Erasure,
    *,
    actor: Actor,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase the person that `text` means, and show the proof.

    Raises:
        SettingsError: the text means no person, or the file of the proof has no folder.
        ErasureRefused: a run of the person is executed, or waits and neither is wanted.
    """
    paused, proof_file = wanted.paused, wanted.proof_file
    subject, terminal = read_subject(text), invocation.terminal
    if proof_file is not None and not (invocation.folder / proof_file).parent.is_dir():
        raise SettingsError(
            f"--proof {proof_file} cannot be written: its folder does not exist",
            hint="create the folder first; nothing was deleted",
        )

    async def look(workspace: Workspace) -> Sequence[Family]:
        return erasable(await (await workspace.store()).families_of(subject), paused)

    found = in_workspace(invocation, look)
    count = plural(sum(len(family.runs) for family in found), "run")
    if dry_run:
        terminal.say(f"{count} would be erased; nothing was deleted")
        return
    require_yes(terminal, f"erase {count} of this person and all that belongs to them", yes=yes)

    async def work(workspace: Workspace) -> Proof:
        return await erase(
            await workspace.store(),
            subject,
            actor=actor,
            paused=paused,
            vacuum_full=wanted.vacuum_full,
            on_batch=lambda gone: terminal.say(f"erased {plural(gone, 'run')}", "dim"),
        )

    proof = in_workspace(invocation, work)
    if as_json:
        terminal.json(proof.to_json())
    else:
        _show(terminal, proof)
    if proof_file is not None:
        terminal.save(f"{formatted(proof.to_json(), indent=True)}\n", invocation.folder, proof_file)
    if not proof.is_overwritten:
        words = ("--keep-paused",) if paused is Paused.KEEP else ()
        again = command("flujo", "purge", "--subject", f"{subject.field}=VALUE", *words, "--vacuum-full")
        terminal.next(again, "overwrite the space that was freed")


def _show(terminal: Terminal, proof: Proof) -> None:
    terminal.table(
        _COLUMNS,
        [
            {
                "table": each.table,
                "looked_at": each.looked_at,
                "removed": each.removed,
                "kept": each.kept,
                "why": each.why,
            }
            for each in proof.tables
        ],
    )
    terminal.say(f"the proof is an act about {proof.field}, digest {proof.subject}")
    if not proof.is_overwritten:
        terminal.say("the freed space of the tables was not overwritten", "yellow")
    terminal.say("out of reach:")
    for place in proof.out_of_reach:
        terminal.say(f"  {place}")
