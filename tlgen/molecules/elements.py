"""Find the element of an atom where a structure file does not state it, and tell which residues are solvent.

PDB files state elements in columns 77 and 78. The column in which an atom's name begins shows the element
too: column 14 for one-letter elements, column 13 for two-letter ones (wwPDB format 3.3). Many programs follow
neither rule. The residue then helps: amino acids and nucleotides contain no calcium, cadmium or neon, so
``CA``, ``CD`` and ``NE`` are carbon, carbon and nitrogen there, whatever column they begin in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Residue names of water: HOH, and those of CHARMM, Amber, GROMACS, NAMD, Desmond, OpenMM and Martini.
WATERS = frozenset(
    """HOH WAT H2O DOD D2O OH2 HHO OHH WTR XWAT CWA TIP TIP2 TIP3 TIP4 TIP5 TIPS TP2 TP3 TP4 TP5 TP3M TP4E
    TP5E T3P T4P T5P T3H T4E TIP3P TIP4P TIP5P TIP4E TI3P TI4P TI5P SOL SPC SPCE SPE SPF SPG SPCF OPC OP3 OPC3
    FB3 FB4 SWM SWM4 SWM6 SW4 SW6 PL3 PW W WF""".split()  # noqa: SIM905
)
#: Atom names of the oxygen of water in those programs, whatever the residue is called.
_WATER_OXYGENS = frozenset(["OW", "OW0", "OW1", "OH2", "OWT", "OWT3", "OWT4"])
#: Names of ions in simulation programs -> their elements.
_IONS = {
    "SOD": "Na", "NA+": "Na", "NIO": "Na", "POT": "K", "K+": "K", "CLA": "Cl", "CL-": "Cl", "CIO": "Cl",
    "CAL": "Ca", "CES": "Cs", "CS+": "Cs", "LIT": "Li", "LI+": "Li", "RUB": "Rb", "RB+": "Rb", "BAR": "Ba",
    "CAD": "Cd", "MAG": "Mg", "MG2": "Mg", "ZN2": "Zn", "CA2": "Ca", "IB": "Br", "IM": "Cl", "IP": "Na",
}  # fmt: skip
#: Elements of the salt ions in the solvent of a simulation box.
BATH = frozenset({"Na", "K", "Cl", "Li", "Rb", "Cs"})

#: All elements of the common amino acids and nucleotides, and the selenium of MSE and SEC.
OF_POLYMERS = frozenset({"H", "D", "C", "N", "O", "S", "P", "Se"})
#: Two-letter elements in modified residues and ligands, whose atom names begin with the symbol.
_TWO_LETTERS = frozenset(
    """CL BR SE FE ZN MG MN CU NI SI MO RU RH PT IR AS AL AU AG TE LI GA GD YB""".split()  # noqa: SIM905
)
_ONE_LETTER = frozenset("HDCNOSPFIBKVWUY")


def letters_of(name: str) -> str:
    """Return the leading letters of an atom's name, after digits and primes: ``1HB`` -> ``HB``."""
    found = re.match(r"[^A-Za-z]*([A-Za-z]+)", name)
    return found[1] if found else ""


def element_by_name(
    name: str, residue: str, *, alone: bool = False, polymer: bool = False, column: str | None = None
) -> str:
    """Infer the element of an atom from its name and its residue.

    Parameters
    ----------
    name
        Name of the atom.
    residue
        Name of its residue.
    alone
        Whether it is the only atom of its residue, as an ion is.
    polymer
        Whether the residue is an amino acid or a nucleotide.
    column
        The four columns that hold the name, if they distinguish one-letter from two-letter elements (in a
        PDB file whose atom names begin in the right column).

    Returns
    -------
    str
        Symbol of the element, ``D`` for deuterium; empty if the name gives no element.
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
    # old ligand names have a letter before the element: AC1, AN6
    return next((letter for letter in upper[:2] if letter in _ONE_LETTER), "")


def _ion(atom: str, residue: str) -> str:
    if residue in _IONS:
        return _IONS[residue]
    return _symbol(atom) if re.sub(r"[^A-Z]", "", residue) == atom else ""


def _symbol(word: str) -> str:
    """Return an element's symbol in its usual spelling; empty if there is no such element."""
    import gemmi

    if word == "D":
        return "D"
    element = gemmi.Element(word)
    return str(element.name) if element.atomic_number > 0 and len(word) <= 2 else ""


def is_water(residue: str, atoms: Sequence[tuple[str, str]]) -> bool:
    """Tell whether a residue is water, under any name that structures and simulation programs use.

    Parameters
    ----------
    residue
        Name of the residue.
    atoms
        Name and symbol of each atom; the symbol of a virtual site is ``X`` or empty.
    """
    heavy = [name.upper() for name, symbol in atoms if symbol not in ("H", "D", "X", "")]
    symbols = {symbol for _, symbol in atoms} - {"H", "D", "X", ""}
    if residue.upper() in WATERS:
        return symbols <= {"O"} or residue.upper() in ("W", "WF", "PW")  # Martini beads
    if symbols != {"O"}:
        return False
    hydrogens = sum(symbol in ("H", "D") for _, symbol in atoms)
    return set(heavy) <= _WATER_OXYGENS or (len(heavy) == 1 and hydrogens == 2)
