"""What a simulated study is made of: every quantity with its unit, its range and its default.

The defaults resemble the isoflurane two-photon recordings of Algamal et al. (10.1038/s42003-022-04268-x) in noise,
skewness, autocorrelation, event rate and neighbour correlation; `rate` to `neuropil_length` were tuned to that end.
"""

import dataclasses
import math
import sys
from numbers import Integral, Real

from ..processing_neurt import MIN_FRAMES
from .simulate_activity import INDICATORS, check_room

_COUNTS = {"subjects_per_group": 1, "sessions": 1, "fields": 1, "neurons": 1, "artifacts": 0, "latents": 1, "seed": 0}
_POSITIVE = ("duration", "sampling_rate", "min_distance", "rate", "latent_length", "drive_time")
_POSITIVE += ("amplitude", "drift_time", "neuropil_length")
_NOT_NEGATIVE = ("rate_spread", "coupling", "amplitude_spread", "noise", "noise_spread", "drift", "neuropil")
_NOT_NEGATIVE += ("mouse_spread",)

# What can be planted, and the quantity of planted neurons that each multiplies.
EFFECTS = {"hyperactivity": "rate", "variability": "coupling", "synchrony": "private_drive_variance"}


@dataclasses.dataclass(frozen=True)
class SimulationConfig:
    """What is simulated. A spread is the standard deviation of a natural logarithm: 0 is none, 0.1 about 10 %.

    Args:
        subjects_per_group: Mice in each of the two groups.
        sessions: Imaging sessions of each mouse; they show the same neurons, active anew.
        fields: Imaging fields of each session; each is one recording.
        neurons: Neurons in a field.
        artifacts: Rejected regions in a field, which show neuropil and noise but no cell.
        duration: Length of a recording in s.
        sampling_rate: Frames per second (Hz).
        indicator: "GCaMP6s" or "GCaMP6f", which sets rise and decay.
        field_of_view: Width and height of a field in µm.
        min_distance: Smallest distance between the centres of two somata in µm.
        rate: Median firing rate in Hz.
        rate_spread: Spread of firing rates over neurons.
        latents: Number of latent factors shared by the neurons of a session.
        latent_length: Distance in µm over which a latent's influence changes.
        shared_drive: Share of the variance of a neuron's drive that comes from the latents, 0 to 1.
        drive_time: Time constant of the drive, shared or a neuron's own, in s.
        coupling: Strength of the drive: the spread over time of each neuron's firing rate.
        amplitude: Median peak response to one spike in dF/F.
        amplitude_spread: Spread of amplitudes over neurons.
        noise: Median white noise in dF/F per √Hz: its standard deviation in a frame is noise × √sampling_rate.
        noise_spread: Spread of noise levels over neurons.
        drift: Standard deviation of the slow drift of each neuron in dF/F.
        drift_time: Time constant of the drift in s.
        neuropil: How much of the mean signal of the surroundings leaks into each trace, as a share of it.
        neuropil_length: Distance in µm over which the surroundings fade.
        mouse_spread: Spread over mice of each of rate, amplitude, noise, coupling and decay time.
        effect: What distinguishes planted neurons of the planted group. "hyperactivity": they fire more.
            "variability": their rates vary more over time, around the same mean. "synchrony": they share more of their
            drive with their neighbours, and no single trace tells; `neuropil` must be 0 then.
        effect_size: How strong the effect is, without unit; 0 is none. Multiplied by 1 + effect_size are the rates
            ("hyperactivity") or the coupling, the mean of each rate over the recording being kept ("variability").
            Divided by it is the variance of the private drive, and what is taken away is shared with planted neurons
            within about `latent_length` ("synchrony"). Above -1; for "synchrony" at least 0.
        effect_share: Share of the neurons that are planted in each mouse of the planted group, 0 to 1. Synchrony grows
            between planted neurons only, so near pairs are affected with about the square of this share.
        seed: Start of all random draws; the same seed gives the same study.

    Raises:
        ValueError: If a value is outside its range or the field too small for its neurons.
    """

    subjects_per_group: int = 8
    sessions: int = 1
    fields: int = 1
    neurons: int = 60
    artifacts: int = 0
    duration: float = 300.0
    sampling_rate: float = 5.0
    indicator: str = "GCaMP6s"
    field_of_view: tuple[float, float] = (300.0, 240.0)
    min_distance: float = 9.0
    rate: float = 0.1
    rate_spread: float = 1.3
    latents: int = 8
    latent_length: float = 40.0
    shared_drive: float = 0.5
    drive_time: float = 3.0
    coupling: float = 1.4
    amplitude: float = 0.25
    amplitude_spread: float = 0.7
    noise: float = 0.048
    noise_spread: float = 0.5
    drift: float = 0.07
    drift_time: float = 60.0
    neuropil: float = 0.2
    neuropil_length: float = 40.0
    mouse_spread: float = 0.1
    effect: str = "hyperactivity"
    effect_size: float = 2.0
    effect_share: float = 0.5
    seed: int = 0

    def __post_init__(self):
        for name, least in _COUNTS.items():
            self._check(name, Integral, getattr(self, name), f"a whole number of at least {least}", least)
        for name in _POSITIVE:
            self._check(name, Real, getattr(self, name), "a finite number above 0", math.ulp(0.0))
        for name in _NOT_NEGATIVE:
            self._check(name, Real, getattr(self, name), "a finite number of at least 0", 0)
        for size in self.field_of_view:
            self._check("field_of_view", Real, size, "a width and a height in µm above 0", math.ulp(0.0))
        for name in ("shared_drive", "effect_share"):
            self._check(name, Real, getattr(self, name), "a share from 0 to 1", 0, 1)
        self._check_effect()
        if self.indicator not in INDICATORS:
            raise self._error("indicator", f"one of {', '.join(INDICATORS)}")
        if self.frames < MIN_FRAMES:
            least = MIN_FRAMES / self.sampling_rate
            raise self._error("duration", f"at least {MIN_FRAMES} frames ({least:g} s at {self.sampling_rate:g} Hz)")
        check_room(self.neurons + self.artifacts, self.field_of_view, self.min_distance)

    def _check_effect(self):
        if self.effect not in EFFECTS:
            raise self._error("effect", f"one of {', '.join(EFFECTS)}")
        least, words = (0, "at least 0") if self.effect == "synchrony" else (math.nextafter(-1, 0), "above -1")
        self._check("effect_size", Real, self.effect_size, f"a finite number {words}, for {self.effect}", least)
        if self.effect == "hyperactivity" or self.effect_size == 0:
            return
        if self.coupling == 0:
            raise self._error("coupling", f"a number above 0, for without drive there is no {self.effect}")
        if self.effect == "synchrony":
            self._check_synchrony()

    def _check_synchrony(self):
        if self.shared_drive == 1:
            raise self._error("shared_drive", "a share below 1, for synchrony is taken from the private drive")
        if self.neuropil > 0:
            # Synchronous neighbours leak in together with the neuron's own signal, which widens its trace.
            raise self._error("neuropil", "0 with synchrony, which leaking neighbours would show in single traces")

    def _check(self, name, kind, value, expected, least, most=sys.float_info.max):
        if not isinstance(value, kind) or not least <= value <= most:
            raise self._error(name, expected)

    def _error(self, name: str, expected: str) -> ValueError:
        return ValueError(f"{name} of the simulation: expected {expected}, got {getattr(self, name)!r}")

    @property
    def effect_factor(self) -> float:
        """By what the effect multiplies the quantity of planted neurons that `EFFECTS` names."""
        return 1 / (1 + self.effect_size) if self.effect == "synchrony" else 1 + self.effect_size

    @property
    def frames(self) -> int:
        """Frames in a recording."""
        return round(self.duration * self.sampling_rate)
