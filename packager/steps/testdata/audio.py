"""Makes audio.json: sounds, settings of the step audio, and what other libraries make of them.

    pip install numpy scipy librosa kaldi_native_fbank soundfile
    python3 audio.py > audio.json

Arrays are little-endian, base64. Tolerances are absolute, on the values as stored. librosa and scipy compute in f64 here, so that what
differs is the rounding to f32 at the end; kaldi-native-fbank computes in f32. The resampler has no library to be held against here:
its reference is its definition (a sinc under a Hann window, as torchaudio's functional.resample has it), written with numpy.
"""
import base64, io, json, math, sys
import numpy as np, scipy.signal, scipy.fft, librosa, soundfile
import kaldi_native_fbank as knf

RATE = 16000


def pack(a, t): return base64.b64encode(np.ascontiguousarray(a).astype(t).tobytes()).decode()


def sound(n, rate=RATE, seed=7):
    r = np.random.default_rng(seed)
    t = np.arange(n) / rate
    x = 0.4 * np.sin(2 * np.pi * (220 + 900 * t * 8) * t) + 0.2 * np.sin(2 * np.pi * 3100 * t) + 0.05 * r.standard_normal(n)
    return np.round(np.clip(x, -1, 1) * 32767) / 32768


cases = []


def case(name, config, x, want, tol, rel=0, source=None):
    c = dict(name=name, config=config, shape=list(np.shape(want)), want=pack(np.ascontiguousarray(want).view(float) if np.iscomplexobj(want) else want, "<f4"), tol=tol, rel=rel)
    if np.iscomplexobj(want): c["shape"] = list(want.shape) + [2]
    if isinstance(x, bytes): c["file"] = base64.b64encode(x).decode()
    elif isinstance(x, str): c["sound"] = x
    else: c["samples"], c["channels"] = pack(x, "<f4"), x.shape[0] if x.ndim == 2 else 0
    cases.append(c)


X = sound(1500)
S = {"chirp": pack(X * 32768, "<i2")}
base = dict(Rate=RATE, Frame=400, Hop=160, Layout="ft")


def spec(n_fft, power=2, **k): return np.abs(librosa.stft(X, n_fft=n_fft, dtype=np.complex128, **k)) ** power


def bank(n_fft, n_mels, **k): return librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=n_mels, dtype=np.float64, **k)


# librosa: transforms of many lengths
for n in (400, 512, 375, 254, 509, 154, 33):
    case(f"librosa stft {n}", dict(base, Output="complex", Frame=n, Hop=251), "chirp", librosa.stft(X, n_fft=n, hop_length=251, pad_mode="reflect", dtype=np.complex128), 2e-6)
case("librosa stft, frames inside, window of 300 in 512", dict(base, Output="spectrum", Power=1, Frame=300, FFT=512, Hop=200, Frames="inside"), "chirp",
     spec(512, 1, hop_length=200, win_length=300, center=False), 1e-6, 2e-6)
for mode, name in (("constant", "zero"), ("edge", "edge"), ("symmetric", "symmetric")):
    case(f"librosa stft, {mode} pad", dict(base, Output="spectrum", Pad=name, Frame=1024, Hop=700, Window="hamming", Symmetric=True), "chirp",
         spec(1024, hop_length=700, pad_mode=mode, window=scipy.signal.windows.hamming(1024, sym=True)), 1e-6, 2e-6)

# librosa: mel and cepstra
case("librosa mel slaney", dict(base, Output="mel", Mels=40, MelScale="slaney", MelArea=True), "chirp",
     bank(400, 40, htk=False, norm="slaney") @ spec(400, hop_length=160, pad_mode="reflect"), 1e-7, 3e-6)
db = librosa.power_to_db(bank(512, 64, htk=True, norm=None, fmin=50, fmax=7600) @ spec(512, hop_length=160, win_length=400, pad_mode="constant"), ref=np.max, top_db=60)
case("librosa mel htk, db below the largest", dict(base, Output="mel", FFT=512, Pad="zero", Mels=64, FMin=50, FMax=7600, Log="db", RefMax=True, Range=60), "chirp", db, 2e-5)
amp = librosa.amplitude_to_db(spec(256, 1, hop_length=160, pad_mode="reflect", window="blackman"), ref=0.5, amin=1e-5, top_db=None)
case("librosa amplitude in db", dict(base, Output="spectrum", Power=1, Frame=256, Window="blackman", Log="db", Floor=1e-5, Reference=0.5), "chirp", amp, 3e-5)
mel = bank(512, 40, htk=False, norm="slaney") @ spec(512, hop_length=160, pad_mode="constant")
case("librosa mfcc", dict(base, Output="mfcc", Frame=512, Pad="zero", Mels=40, MelScale="slaney", MelArea=True, Log="db", Range=80, Coefs=20, Layout="nft"), "chirp",
     librosa.feature.mfcc(S=librosa.power_to_db(mel, top_db=80), n_mfcc=20)[None], 2e-4)
case("cepstra without orthonormal form", dict(base, Output="mfcc", Frame=512, Pad="zero", Mels=40, MelScale="slaney", MelArea=True, Log="ln", Coefs=13, NoOrtho=True, Layout="tf"), "chirp",
     scipy.fft.dct(np.log(np.maximum(mel, 1e-10)), axis=0, type=2)[:13].T, 2e-4)

# Whisper's features, by their definition
W = np.concatenate([X, np.zeros(2000 - len(X))])
m = bank(400, 80, htk=False, norm="slaney") @ (np.abs(librosa.stft(W, n_fft=400, hop_length=160, pad_mode="reflect", dtype=np.complex128)) ** 2)[:, :-1]
l = np.log10(np.maximum(m, 1e-10))
case("Whisper", dict(base, Output="mel", Length=2000, DropLast=True, Mels=80, MelScale="slaney", MelArea=True, Log="log10", Range=8, Mean=-4, Std=4, Layout="nft"), "chirp",
     ((np.maximum(l, l.max() - 8) + 4) / 4)[None], 2e-6)
# NeMo's: whole-signal pre-emphasis, an added constant, mean and deviation of each feature (ddof 1)
Y = scipy.signal.lfilter([1, -0.97], [1], X)
n = np.log(bank(512, 80, htk=False, norm="slaney") @ np.abs(librosa.stft(Y, n_fft=512, hop_length=160, win_length=400, window=scipy.signal.windows.hann(400, sym=True), pad_mode="constant", dtype=np.complex128)) ** 2 + 2 ** -24)
n = (n - n.mean(1, keepdims=True)) / (n.std(1, ddof=1, keepdims=True) + 1e-5)
case("normalised features", dict(base, Output="mel", FFT=512, Symmetric=True, PreEmphasis=0.97, Pad="zero", Mels=80, MelScale="slaney", MelArea=True, Log="ln", Add=2 ** -24,
     Normalize="feature", DDof=1, Epsilon=1e-5, EpsilonStd=True, Layout="nft"), "chirp", n[None], 5e-5)
case("normalised waveform", dict(Rate=RATE, Output="waveform", Normalize="feature", Epsilon=1e-7), "chirp", ((X - X.mean()) / np.sqrt(X.var() + 1e-7))[None], 2e-6)

# scipy
_, _, z = scipy.signal.stft(X, fs=RATE, window="hann", nperseg=240, noverlap=140, boundary=None, padded=False, detrend=False, scaling="spectrum")
case("scipy stft", dict(base, Output="complex", Frame=240, Hop=100, Frames="inside", Scaling="sum"), "chirp", z, 1e-7)
_, _, z = scipy.signal.spectrogram(X, fs=1, window="hann", nperseg=256, nfft=300, noverlap=100, detrend=False, scaling="density")
z[1:-1] /= 2  # one side of two
case("scipy spectrogram", dict(base, Output="spectrum", Frame=256, FFT=300, Hop=156, Frames="inside", AlignStart=True, Scaling="energy"), "chirp", z, 1e-8, 3e-6)


# kaldi
def kaldi(o, make):
    f = make(o)
    f.accept_waveform(RATE, (X * 32768).tolist())
    f.input_finished()
    return np.stack([f.get_frame(i) for i in range(f.num_frames_ready)])


for snip in (True, False):
    o = knf.FbankOptions()
    o.frame_opts.dither, o.frame_opts.snip_edges, o.mel_opts.num_bins = 0, snip, 80
    case(f"kaldi fbank, snip_edges {snip}", dict(base, Output="mel", Scale=32768, FFT=512, RemoveDC=True, PreEmphasis=0.97, PreEmphasisFrame=True, Window="povey", Symmetric=True, AlignStart=True,
         Frames="inside" if snip else "kaldi", Pad="symmetric", Mels=80, FMin=20, MelStraight=True, Log="ln", Floor=1.1920929e-07, Layout="tf"), "chirp", kaldi(o, knf.OnlineFbank), 5e-4)
o = knf.MfccOptions()
o.frame_opts.dither, o.use_energy, o.frame_opts.window_type, o.mel_opts.high_freq, o.mel_opts.num_bins = 0, False, "hamming", 7600, 23
case("kaldi mfcc", dict(base, Output="mfcc", Scale=32768, FFT=512, RemoveDC=True, PreEmphasis=0.97, PreEmphasisFrame=True, Window="hamming", Symmetric=True, AlignStart=True,
     Frames="inside", Mels=23, FMin=20, FMax=7600, MelStraight=True, Log="ln", Floor=1.1920929e-07, Coefs=13, Lifter=22, Layout="tf"), "chirp", kaldi(o, knf.OnlineMfcc), 1e-3)


# the resampler
def resample(x, old, new, zeros, rolloff):
    g = math.gcd(old, new)
    old, new = old // g, new // g
    band = min(old, new) * rolloff
    out = []
    for i in range(-(-len(x) * new // old)):
        t = (np.arange(len(x)) - i * old / new) * band / old
        t = np.clip(t, -zeros, zeros)
        out.append(np.sum(x * np.sinc(t) * np.cos(t * np.pi / zeros / 2) ** 2 * band / old))
    return np.array(out)


for old, new, zeros, roll in ((44100, 16000, 6, 0.99), (8000, 16000, 6, 0.99), (22050, 16000, 16, 0.95), (16000, 11025, 6, 0.99), (48000, 8000, 6, 0.99), (16001, 15991, 4, 0.9)):
    x = sound(700, old).astype("f4")
    case(f"resample {old} to {new}", dict(Rate=new, SourceRate=old, Output="waveform", Layout="t", Zeros=zeros, Rolloff=roll), x, resample(x.astype(float), old, new, zeros, roll), 3e-7)
x = np.stack([sound(50, seed=1), sound(50, seed=2), sound(50, seed=3)]).astype("f4")
case("three channels", dict(Rate=RATE, Output="waveform", Layout="nct"), x, x.astype(float).mean(0)[None, None], 1e-7)
case("channel 1", dict(Rate=RATE, Output="waveform", Layout="t", Channel=2), x, x[1], 0)

# WAV files
for sub in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
    for form in ("WAV", "WAVEX", "RF64"):
        for chans in (1, 2):
            if chans == 2 and form == "RF64": continue
            b = io.BytesIO()
            soundfile.write(b, np.stack([sound(37, seed=s) for s in range(chans)], 1), 22050, subtype=sub, format=form)
            y, _ = soundfile.read(io.BytesIO(b.getvalue()), dtype="float64", always_2d=True)
            case(f"{form} {sub} {chans}", dict(Rate=22050, Output="waveform", Layout="t"), b.getvalue(), y.mean(1), 1e-7)

json.dump(dict(sounds=S, cases=cases), sys.stdout, separators=(",", ":"))
