"""Two HDF5 files that h5py 3.16 wrote, compressed: three clouds of eight points, labels and masks.

`data` is arange(72) / 10 as (3, 8, 3) float32, `label` 0, 9, 14 as uint8, `mask` -1 at every fourth point and 5 elsewhere.
"""

from __future__ import annotations

import base64
import zlib

_WHOLE = (
    'c-rmOzf0U;7{KxOP3|;`6{Uk`m);}}9ST|O;3Wl59K@E|LAN{6Q0O_?p{0Wdf+#o$h0;g|K@dd;K`4}VI4G1Ba!@D;2M&VZKj0r=zcKGCmt1?L'
    'OF7VIdGdbVAIbaXeM45qMn-RS-su!!Se8hM9#J0`DqeTQ%euaxvQ&9R<sC!2ysXP8?^WX`+dX}f&xfrq5~1&NKNaPSxQXi+WBG@V!#t(RS(U#T'
    '@piMt7sW7_iZgR1@_cdOdHwzz`p5f9k&gOGU5-YOW(1~cXQ^x^a-(N1hw9DV6)827K1=j1s`@lN!g|9nWYj;}@uqy4Rx_9JCw%r_-^1j@qY=q0'
    '^t`fW^Y;2{@~*9UJAJPA+ON-^t_HzyH5kur_<oM-9OP{H{f=$h4(@oK=Lk{edJXp}Z&P=ORj>f7VQ1JmCS1>JbE`p@YumS7#&LN&*Z_79v#|%5'
    'i;ZIA*d#WM6)+DgVGGzRtjzTizD#+Qx;1PadxO2jeC$28iEUxq*e<q@9bkvp2kayE8LMDlu&>y6EWmzXKd~dMh8<%k*s0ri?xGzcrTpzVGudfU'
    '?KfF>^8S3DcG}}3=vZ&f&C=1`xFmy7HkyBmtmG0|+T6b^(I?fll6aPKORR|gMMz(LI^((3>wf`D+S=0'
)
_CHUNKED = (
    'c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvfnAK7FF!=;1%?PDCp!5nRm^dR?P68?}2sIyFT}Y6tD@gT!Gyt>5fCWNJFpPqc2s~UJ13+{Hl&=7#PcWgX'
    'OGzwA1kpK(NvSzNIybR68##SikZ3O>0~<syBa9C*fsq*^zzkK#0i~JIXiRYluu*~v@(e6cpNMlXh}T2qS%Er0@=VN3U<<ez0>FGmr~yo1c}9lf'
    'jMB8UoK&b8Aa_B;Q&Q7%5=#)`%+UM>R9ljqky>PI1alW81euvwDp(Ot<bcvFh!EgF36Eeue-}oe5}2q0Gyd>{l_nuV_|?Jk^<wFfk)A>29V3?V'
    'ZVr+9cL<{Laiuqw(V}A%jDk@x3P!;w7zLwX6pVr)4=Uo4Evn0|MYcsAOTR2}?wpr#n?PoIZ~8*vW0?-6J2=~n)6?c9&d97$>wS2}XMtdX(%YVo'
    'J|%}NcvtY5A1pY=?%^r*dx`0nGcntK9+)}%yq)oej~w1wD_%-OTkZJC;;y#jsYtk)$@bE3J~M1`pUq+Ip1w9_bK>W1bF2Ae?8-i!X+3>C?_TAH'
    '83(VOJ9kb_)M5f7gK>Xh=g*(n_LzNUNbio3kr8Vj8PrE*g!UB~k$N$t_JtYA?h8vm`@&2q!U(4^B0}4OqPW7<*W<^beu^~qz8&LevL6MbU=)mk'
    'Q7{UIbKCC06JVvU%pl?Pd&OqV=9C76X2L%O!GYeq;(&=ckk!26ptyO(yjcd}L=J=#HK@{@A~ZGlS`B-%iUW-v1*2dTjDk@x3P!;w7zM+nS^fL`'
    'sZ+n?rPC4;B)B9P`nDNppI&Td4geF`=lB'
)


def whole() -> bytes:
    """Arrays in one piece."""
    return zlib.decompress(base64.b85decode(_WHOLE))


def chunked() -> bytes:
    """Arrays in chunks, shuffled, deflated, with checksums."""
    return zlib.decompress(base64.b85decode(_CHUNKED))
