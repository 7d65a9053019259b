"""An import-linter contract: no room imports a private module of another room.

``[tool.importlinter]`` in pyproject.toml registers it as the contract type ``private_modules``.
"""

from __future__ import annotations

import grimp
from importlinter import Contract, ContractCheck, fields, output
from importlinter.application import contract_utils
from importlinter.application.contract_utils import AlertLevel


class PrivateModules(Contract):
    """Refuse an import of ``root.room._module`` (at any depth) from outside ``root.room``.

    A private module directly below the root (``root._io``) is a room of its own and is open to all.
    """

    type_name = "private_modules"

    root = fields.StringField()
    ignore_imports = fields.SetField(subfield=fields.ImportExpressionField(), required=False)

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        """Find every import that reaches into another room."""
        removed = contract_utils.remove_ignored_imports_and_report(
            graph=graph,
            ignore_imports=self.ignore_imports,
            unmatched_alerting=AlertLevel.ERROR,
        )
        found = private_imports(graph, self.root)
        return ContractCheck(
            kept=not found,
            warnings=list(removed.warnings),
            ignored_import_count=removed.ignored_import_count,
            metadata={"found": found},
        )

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line per import, and the remedy."""
        for importer, imported in check.metadata["found"]:
            output.print_error(f"{importer} imports {imported}")
        output.print_error(
            "Import a public name of the other room instead: export it from the room's "
            "__init__.py, or drop the underscore from its module's name."
        )


def private_imports(graph: grimp.ImportGraph, root: str) -> list[tuple[str, str]]:
    """Return each import of another room's private module, as importer and imported."""
    return sorted(
        (importer, imported)
        for imported in {root, *graph.find_descendants(root)}
        if _is_private(imported, root)
        for importer in graph.find_modules_that_directly_import(imported)
        if _room(importer, root) != _room(imported, root)
    )


def _room(module: str, root: str) -> str:
    return module.removeprefix(f"{root}.").split(".")[0]


def _is_private(module: str, root: str) -> bool:
    inside_room = module.removeprefix(f"{root}.").split(".")[1:]
    return any(part.startswith("_") for part in inside_room)
