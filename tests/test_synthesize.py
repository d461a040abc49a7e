"""The synthesize stage: files, tables, independence of the number of processes, resuming after a kill."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import synthesize
from pipeline.core.archives import open_shards
from pipeline.core.errors import UserError
from pipeline.core.files import write_json
from pipeline.datasets.simulated import open_simulated
from pipeline.synthesis import simulate as rooms
from pipeline.synthesis.config import SynthesisConfig
from pipeline.synthesis.simulate import TINY, UNUSABLE, Clip, Skipped
from tests.test_synthesis import CONFIG, FakeStills, Found, make_stills
