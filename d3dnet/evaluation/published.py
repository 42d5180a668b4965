"""Published results, PSNR in dB and SSIM, of x4 super-resolution of BI (bicubic) frames.

By protocol and test set. The row "bicubic" of Vid4 under the d3dnet protocol is as printed, but was
measured differently: bicubic gives 23.773 / 0.6396 under the protocol itself; the printed figures
come out with 10 pixels cropped, nothing truncated, and SSIM over the valid region.
"""

PUBLISHED: dict[tuple[str, str], dict[str, tuple[float, float]]] = {
    ("d3dnet", "Vid4"): {
        "bicubic": (23.76, 0.631),
        "VSRnet": (24.37, 0.679),
        "VESPCN": (24.95, 0.714),
        "DBPN": (25.32, 0.736),
        "RCAN": (25.46, 0.740),
        "SOF-VSR": (26.02, 0.771),
        "TDAN": (26.16, 0.782),
        "D3Dnet": (26.52, 0.799),
    },
    ("d3dnet", "Vimeo-90k"): {
        "bicubic": (31.31, 0.865),
        "VSRnet": (32.43, 0.889),
        "VESPCN": (33.55, 0.907),
        "DBPN": (35.17, 0.925),
        "RCAN": (35.35, 0.925),
        "SOF-VSR": (34.89, 0.923),
        "TDAN": (35.34, 0.930),
        "D3Dnet": (35.65, 0.933),
    },
    ("d3dnet", "SPMC-11"): {
        "bicubic": (25.67, 0.726),
        "VSRnet": (26.41, 0.766),
        "VESPCN": (27.09, 0.794),
        "DBPN": (27.92, 0.822),
        "RCAN": (28.36, 0.828),
        "SOF-VSR": (28.21, 0.832),
        "TDAN": (28.51, 0.841),
        "D3Dnet": (28.78, 0.851),
    },
    ("y-crop0", "Vid4"): {
        "bicubic": (23.784, 0.6347),
        "BasicVSR-uni-lite": (26.68, 0.8012),
        "BasicVSR-lite": (26.86, 0.8125),
        "SSL-uni": (27.01, 0.8148),
        "SSL": (27.15, 0.8208),
        "KSNet": (27.22, 0.8245),
        "BasicVSR": (27.24, 0.8251),
        "BasicVSR++": (27.79, 0.8400),
    },
    ("y-crop8", "Vid4"): {"DUF": (27.33, 0.8318)},
    ("rgb-crop8", "Vid4"): {"DUF": (25.79, 0.8136)},
}

# Vid4, x 1000: T-MOVIE and MOVIE of `range_compressed` luma, one evaluated frame per clip.
PUBLISHED_MOVIE: dict[tuple[str, str], dict[str, tuple[float, float]]] = {
    ("d3dnet", "Vid4"): {
        "VSRnet": (26.05, 6.01),
        "VESPCN": (25.41, 6.02),
        "DBPN": (21.43, 5.50),
        "RCAN": (23.49, 5.98),
        "SOF-VSR": (19.35, 4.25),
        "TDAN": (18.87, 4.11),
        "D3Dnet": (15.45, 3.38),
    },
}

# Millions of parameters, and "FLOPs" in G for a 1280 x 720 frame. D3Dnet's are multiply-accumulates
# without its deformable convolutions: everything counted, it needs about 855 G.
PUBLISHED_COST: dict[str, tuple[float, float]] = {
    "VSRnet": (0.27, 260.9),
    "VESPCN": (0.88, 49.8),
    "DBPN": (10.43, 5213.0),
    "RCAN": (15.59, 919.0),
    "SOF-VSR": (1.64, 108.9),
    "TDAN": (1.97, 288.0),
    "D3Dnet": (2.58, 408.8),
}
