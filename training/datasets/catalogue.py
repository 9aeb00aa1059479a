"""Where each data set comes from: whom to ask, under what terms, and what its folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Source:
    """What a person needs to get a data set. ``licence``: of the data, as far as its authors state one."""

    title: str
    holds: str
    licence: str
    ask: str


SOURCES: Final[dict[str, Source]] = {
    "mafw": Source(
        "MAFW: 10,045 clips, 11 emotions, captions in English and Chinese",
        "data/clips/, Labels/, 'Train & Test Set/'",
        "signed agreement, non-commercial research",
        "the form of https://github.com/MAFW-database/MAFW, sent to its authors from a university's address",
    ),
    "emvidcap": Source(
        "EmVidCap: 1,890 videos with emotional captions",
        "EmVidCap-L/, EmVidCap-S/, youtube_mapping.txt, sentiment-words-E/",
        "by agreement with the authors; no licence stated",
        "https://mic.tongji.edu.cn (Emotional Video Captioning), captions also beside https://github.com/songpipi/EPAN",
    ),
    "msvd": Source(
        "MSVD: 1,970 videos with forty captions each",
        "youtube_mapping.txt, video_corpus.csv, YouTubeClips/",
        "Microsoft Research data licence, research; the videos belong to their makers",
        "https://www.cs.utexas.edu/~ml/clamp/videoDescription/",
    ),
    "msrvtt": Source(
        "MSR-VTT: 10,000 videos with twenty captions each",
        "MSRVTT_data.json, videos/all/",
        "research; the videos belong to their makers",
        "the MSR Video to Language challenge of Microsoft Research (Xu et al., 2016)",
    ),
    "swinbert": Source(
        "any captioned set in SwinBERT's TSV form",
        "train.yaml, val.yaml, test.yaml and the files they name",
        "that of the data inside",
        "made by 'emo data export'",
    ),
    "meld": Source(
        "MELD: 1,432 dialogues, 13,708 utterances, 7 emotions",
        "train_sent_emo.csv, dev_..., test_..., train_splits/, dev_splits_complete/, output_repeated_splits_test/",
        "GPL-3.0; the clips belong to the makers of the series",
        "https://github.com/declare-lab/MELD (MELD.Raw.tar.gz)",
    ),
    "ecem": Source(
        "ECEM: 5,837 explanations of MELD's emotions, the published part",
        "train_data_just_reason.json; MELD beside it; videos/ as the preparation makes them",
        "none stated",
        "https://github.com/3222345200/ECEMdataset; the rest is unpublished: ask the authors of FAME-Net",
    ),
    "ecf": Source(
        "ECF: 9,794 pairs of emotion and cause in 1,374 conversations",
        "train.txt, dev.txt, test.txt, all_data_pair_ECFvsMELD.txt, or Subtask_2_train.json",
        "GPL-3.0, research",
        "https://github.com/NUSTM/MECPE/tree/main/data, https://github.com/NUSTM/SemEval-2024_ECAC",
    ),
    "ecgf": Source(
        "ECGF: causes in words for the emotions of ECF",
        "train.json, dev.json, test.json",
        "GPL-3.0, research",
        "https://huggingface.co/datasets/NUSTM/ECGF, https://github.com/NUSTM/MECGC",
    ),
}
