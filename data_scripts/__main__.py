"""`python -m data_scripts`: list the data sets with source and licence."""

from __future__ import annotations

from data_scripts import abo, modelnet40, objaverse_lvis, open_set, psb, scanobjectnn, shapenet_core
from data_scripts.command import print_about

SCRIPTS = (open_set, modelnet40, scanobjectnn, objaverse_lvis, abo, shapenet_core, psb)

if __name__ == "__main__":
    print_about(*(script.DATA_SET for script in SCRIPTS))
