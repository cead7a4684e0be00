"""Which element an atom is, where a structure file does not say; and which residues are solvent.

PDB files tell elements in columns 77 and 78, or by where a name begins: one-letter elements in column 14,
two-letter ones in column 13 (wwPDB format 3.3). Many programs write neither. What helps then is the residue:
amino acids and nucleotides hold no calcium, cadmium or neon, so ``CA``, ``CD`` and ``NE`` are carbon and
nitrogen there, whatever column they begin in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Names of water in simulation programs (CHARMM, Amber, GROMACS, NAMD, Desmond, OpenMM, Martini), beside HOH.
WATERS = frozenset(
    """HOH WAT H2O DOD D2O OH2 HHO OHH WTR XWAT CWA TIP TIP2 TIP3 TIP4 TIP5 TIPS TP2 TP3 TP4 TP5 TP3M TP4E
    TP5E T3P T4P T5P T3H T4E TIP3P TIP4P TIP5P TIP4E TI3P TI4P TI5P SOL SPC SPCE SPE SPF SPG SPCF OPC OP3 OPC3
    FB3 FB4 SWM SWM4 SWM6 SW4 SW6 PL3 PW W WF""".split()  # noqa: SIM905
)
#: What those programs call the oxygen of water, in residues of any name.
_WATER_OXYGENS = frozenset(["OW", "OW0", "OW1", "OH2", "OWT", "OWT3", "OWT4"])
#: Ions under the names of simulation programs -> their elements.
_IONS = {
    "SOD": "Na", "NA+": "Na", "NIO": "Na", "POT": "K", "K+": "K", "CLA": "Cl", "CL-": "Cl", "CIO": "Cl",
    "CAL": "Ca", "CES": "Cs", "CS+": "Cs", "LIT": "Li", "LI+": "Li", "RUB": "Rb", "RB+": "Rb", "BAR": "Ba",
    "CAD": "Cd", "MAG": "Mg", "MG2": "Mg", "ZN2": "Zn", "CA2": "Ca", "IB": "Br", "IM": "Cl", "IP": "Na",
}  # fmt: skip
#: Elements of the salt in which a simulation's box is bathed.
BATH = frozenset({"Na", "K", "Cl", "Li", "Rb", "Cs"})

#: All elements of the common amino acids and nucleotides, with selenium of MSE and SEC.
OF_POLYMERS = frozenset({"H", "D", "C", "N", "O", "S", "P", "Se"})
#: Elements that modified residues and ligands carry under names that begin with their symbol.
_TWO_LETTERS = frozenset(
    """CL BR SE FE ZN MG MN CU NI SI MO RU RH PT IR AS AL AU AG TE LI GA GD YB""".split()  # noqa: SIM905
)
_ONE_LETTER = frozenset("HDCNOSPFIBKVWUY")


def letters_of(name: str) -> str:
    """Take the letters with which an atom's name begins, after digits and primes: ``1HB`` -> ``HB``."""
    found = re.match(r"[^A-Za-z]*([A-Za-z]+)", name)
    return found[1] if found else ""


def element_by_name(
    name: str, residue: str, *, alone: bool = False, polymer: bool = False, column: str | None = None
) -> str:
    """Tell the element of an atom by its name and its residue.

    Parameters
    ----------
    name
        Of the atom.
    residue
        Its name.
    alone
        It is the only atom of its residue, as ions are.
    polymer
        The residue is an amino acid or a nucleotide.
    column
        The four columns that hold the name, where they tell one-letter elements from two-letter ones (a PDB
        file whose names begin where they should).

    Returns
    -------
    str
        Its symbol, ``D`` for deuterium; empty if the name tells none.
    """
    letters = letters_of(name)
    upper = letters.upper()
    if not letters:
        return ""
    if alone and (ion := _ion(upper, residue.upper())):
        return ion
    if polymer:
        if upper[:2] in ("SE", "CL", "BR"):
            return _symbol(upper[:2])
        return upper[:1] if upper[:1] in "HDCNOSPFI" else ""
    if column is not None and len(name) < 4:
        return _symbol(upper[:1] if not column[:1].isalpha() else upper[:2]) or _symbol(upper[:1])
    if letters[1:2].islower() and (symbol := _symbol(upper[:2])):
        return symbol
    if upper[:2] in _TWO_LETTERS:
        return _symbol(upper[:2])
    # old names of ligands put a letter before the element: AC1, AN6
    return next((letter for letter in upper[:2] if letter in _ONE_LETTER), "")


def _ion(atom: str, residue: str) -> str:
    if residue in _IONS:
        return _IONS[residue]
    return _symbol(atom) if re.sub(r"[^A-Z]", "", residue) == atom else ""


def _symbol(word: str) -> str:
    """Spell an element as it should be; empty if it is none."""
    import gemmi

    if word == "D":
        return "D"
    element = gemmi.Element(word)
    return str(element.name) if element.atomic_number > 0 and len(word) <= 2 else ""


def is_water(residue: str, atoms: Sequence[tuple[str, str]]) -> bool:
    """Tell water, under the names that structures and simulation programs give it.

    Parameters
    ----------
    residue
        Its name.
    atoms
        Name and symbol of each atom; symbols of virtual sites are ``X`` or empty.
    """
    heavy = [name.upper() for name, symbol in atoms if symbol not in ("H", "D", "X", "")]
    symbols = {symbol for _, symbol in atoms} - {"H", "D", "X", ""}
    if residue.upper() in WATERS:
        return symbols <= {"O"} or residue.upper() in ("W", "WF", "PW")  # beads of Martini
    if symbols != {"O"}:
        return False
    hydrogens = sum(symbol in ("H", "D") for _, symbol in atoms)
    return set(heavy) <= _WATER_OXYGENS or (len(heavy) == 1 and hydrogens == 2)
