# Runs models with LiteRT (XNNPACK, one thread) when it is told to: litert.py MODEL INPUT... for each model.
# Reads lines `INDEX RUNS`, prints the nanoseconds that each of those runs took.
import sys
import time

import numpy
from ai_edge_litert.interpreter import Interpreter


def load(model, data):
    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    data = open(data, "rb").read()
    for detail in interpreter.get_input_details():
        size = int(numpy.prod(detail["shape"])) * numpy.dtype(detail["dtype"]).itemsize
        values = numpy.frombuffer(data[:size], detail["dtype"]).reshape(detail["shape"])
        interpreter.set_tensor(detail["index"], values)
        data = data[size:]
    interpreter.invoke()
    return interpreter


models = [load(*pair) for pair in zip(sys.argv[1::2], sys.argv[2::2])]
print("ready", flush=True)
for line in sys.stdin:
    index, runs = map(int, line.split())
    # Without the checks of the method around it.
    invoke = models[index]._interpreter.Invoke
    start = time.perf_counter_ns()
    for _ in range(runs):
        invoke()
    print((time.perf_counter_ns() - start) / runs, flush=True)
