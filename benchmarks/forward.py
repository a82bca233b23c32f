"""How long does VGG16 (without top) take for a batch of photographs?"""

from __future__ import annotations

from benchmarks.common import Options, Report, main
from benchmarks.contenders import photographs, vgg16
from benchmarks.contest import Contender, contest
from benchmarks.peers import minitl_predicts, predicting

GOALS = {1: {"ONNX Runtime": 0.55}, 8: {"ONNX Runtime": 0.45, "Keras": 0.36}}
GOALS[32] = GOALS[8]


def measure(options: Options) -> Report:
    batches = options.pick((1, 8, 32), (1, 2))
    repetitions = options.pick(7, 2)
    network = vgg16(options.size)
    settings = {"image": options.size, "warm-up": 2, "repetitions": repetitions}
    report = Report("forward", __doc__ or "", settings)
    for batch in batches:
        x = photographs(max(batches), options.size)[:batch]
        direct = {"network": network, "x": x, "algorithm": "im2col"}
        contenders = predicting(network, x)
        contenders.append(Contender("minitl, im2col", minitl_predicts, direct))
        results, report.missing = contest(contenders, repetitions)
        case = f"batch {batch}"
        for result in results:
            per_image = [seconds / batch * 1e3 for seconds in result.seconds]
            report.add(case, result.name, "ms/image", per_image, result.note)
        for peer in ("ONNX Runtime", "OpenVINO", "Keras", "PyTorch"):
            report.compare(case, "minitl", peer, goal=GOALS.get(batch, {}).get(peer))
        if batch == 8:
            report.compare(case, "minitl, im2col", "Keras", goal=1.5)
    return report


if __name__ == "__main__":
    main(measure)
