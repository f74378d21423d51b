"""A second decoder of the adaptive stream, written from docs/format.md, section 9.4, alone: plain and slow.

It shares no code with fewbits, so that a mistake in the page and one in the coder do not agree by accident.
"""

from collections import defaultdict

A = [0, 90, 174, 254, 330, 402, 470, 536, 599, 659, 717, 773, 827, 879, 929, 977, 1024]
B = [32768, 38390, 43691, 48418, 52429, 55691, 58254, 60214, 61681, 62762, 63550, 64119, 64528, 64820]
B += [65028, 65176, 65281, 65355, 65408, 65446, 65472, 65491, 65504, 65513, 65520, 65525, 65528]
KINDS = ("plain", "kernel", "image")

# The three tables: input -> what its counter is blended with, and the first weights by kind.
DENSITY = {
    "row": (7822, 572, -396, -258),
    "column": (293, 228, 44, 99),
    "columns": (2694, -248, 101, -55),
    "slice": (35872, 820, -420, -935),
    "slice of the row": (108, 53, 142, -46),
    "pattern": (639, 51, 56, 108),
    "rows above": (639, 45, 46, 44),
    "window": (639, -93, 59, 84),
    "progress": (639, -17, 58, 107),
    "far": (639, -3, -7, 131),
    "link": (None, 148, 109, 140),
    "constant": (None, -550, -430, -540),
}
SIGN = {
    "pair": (86, -87, 216, 105),
    "slope": (86, 60, -3, 62),
    "before": (86, 110, 31, 149),
    "sum": (86, 81, 83, 220),
    "column": (269, -177, -40, -65),
    "row": (877, -62, -180, -684),
}
MAGNITUDE = {
    "average": (449, -17, 125, 109),
    "last": (449, 139, 53, 92),
    "near": (449, 25, 7, 90),
    "row": (449, 218, 259, 2),
    "column": (115, -39, -38, 18),
    "row density": (None, -180, -67, -88),
    "column density": (None, -74, -50, -62),
}
WINDOW = {
    (-1, 0): 4,
    (0, -1): 4,
    (-1, -1): 2,
    (1, -1): 2,
    (-2, 0): 2,
    (0, -2): 2,
    (-2, -1): 1,
    (2, -1): 1,
    (-1, -2): 1,
    (1, -2): 2,
}
LINK_BLEND = 4081
CARRIED = 25
RATES = {"density": 73, "sign": 187, "magnitude": 340}
LEVEL = [1062, 711]
CONTEXT_LIMIT = 192
DENSITY_LIMIT = 1023


class Refused(Exception):
    """The page calls these bytes damaged."""


class Stream:
    """Decisions from bytes."""

    def __init__(self, data):
        if data and data[-1] == 0:
            raise Refused("zero at the end")
        self.data, self.range, self.code, self.bytes_read, self.decisions = data, 2**32, 0, 0, 0
        for _ in range(4):
            self.next_byte()

    def next_byte(self):
        byte = self.data[self.bytes_read] if self.bytes_read < len(self.data) else 0
        self.bytes_read += 1
        self.code = self.code * 256 + byte

    def decide(self, p):
        self.decisions += 1
        if self.decisions > 45_500 * (len(self.data) + 64):
            raise Refused("too many decisions")
        bound = self.range * p >> 16
        one = self.code < bound
        if one:
            self.range = bound
        else:
            self.code -= bound
            self.range -= bound
        while self.range < 2**24:
            self.range *= 256
            self.next_byte()
        return int(one)

    def end(self):
        m, r = len(self.data), self.bytes_read
        if m == 0:
            return
        if r < m:
            raise Refused("bytes are left")
        u = 256 ** (r - m)
        if self.code >= u or (256 - self.data[-1]) * u + self.code < self.range:
            raise Refused("not the shortest")


def log(x):
    k = 0
    while x >> (k + 1):
        k += 1
    z = (x * 65536 >> k) - 65536
    i, f = divmod(z, 4096)
    return 1024 * k + A[i] + ((A[i + 1] - A[i]) * f >> 12)


def squash(s):
    i, f = divmod(min(abs(s), 13311), 512)
    p = B[i] + (((B[i + 1] - B[i]) * f + 256) >> 9)
    return p if s >= 0 else 65536 - p


def prob(counter):
    return counter[1] * 65536 // (counter[0] + counter[1])


def stretch(counter):
    return log(counter[1]) - log(counter[0])


def blend(counter, w, p):
    a = w * p >> 16
    return [counter[0] + w - a + 1, counter[1] + a + 1]


def hit(counter, bit, limit):
    counter[bit] += 64
    if sum(counter) > 64 * limit:
        counter[:] = [(n + 1) >> 1 for n in counter]


def bucket(x, *bounds):
    return len([bound for bound in bounds if bound < x])


def sg(x):
    return 0 if x == 0 else 1 if x > 0 else -1


def clip(x, most):
    return min(max(x, -most), most)


def new_counters():
    return defaultdict(lambda: [0, 0])


class Mixer:
    def __init__(self, table, kind, rate):
        self.rate = rate
        self.weights = [256 * row[1 + KINDS.index(kind)] for row in table.values()]

    def decide(self, stream, base, inputs):
        s = base * 65536 + sum(w * d for w, d in zip(self.weights, inputs, strict=True))
        p = squash(s >> 16)
        decision = stream.decide(p)
        for i, d in enumerate(inputs):
            step = ((decision * 65536 - p) * d * self.rate + 2**23) >> 24
            self.weights[i] = clip(self.weights[i] + step, 2**19)
        return decision


class Kind:
    def __init__(self, kind):
        self.contexts = new_counters()
        self.zero = [Mixer(DENSITY, kind, RATES["density"]) for _ in range(6)]
        self.sign = Mixer(SIGN, kind, RATES["sign"])
        self.magnitude = [Mixer(MAGNITUDE, kind, RATES["magnitude"]) for _ in range(3)]


class Decoder:
    """What is kept from array to array, and the arrays decoded."""

    def __init__(self, data):
        self.stream = Stream(data)
        self.G = [64, 64]
        self.L = {j: list(LEVEL) for j in range(1, 9)}
        self.X = new_counters()
        self.kinds = {kind: Kind(kind) for kind in KINDS}
        self.earlier = []  # for each array, the counters D of its rows

    def array(self, rows, slices, height, width):
        if rows * slices * height * width == 0:
            return []
        self.plain = height * width == 1
        self.kind = self.kinds["plain" if self.plain else "kernel" if height * width < 64 else "image"]
        links = [densities for densities in self.earlier if len(densities) == slices and slices > 1]
        self.link, total = (links[-1], [1, 1]) if links else (None, [1, 1])
        for d in self.link or []:
            total = [total[0] + d[0], total[1] + d[1]]
        while sum(total) >= 2**31:
            total = [(n + 1) >> 1 for n in total]
        self.link_total = total
        if self.plain:
            slices, width = 1, slices
        self.slices, self.height, self.width = slices, height, width
        self.G = blend([0, 0], CARRIED, prob(self.G))
        self.D, self.S, self.M, self.slice_counters = new_counters(), new_counters(), new_counters(), new_counters()
        self.seen, result, densities = {}, [], []  # seen: (row, slice, line, column) -> clipped value
        for self.r in range(rows):
            self.row_D, self.row_S, self.row_M, self.last = [0, 0], [0, 0], [0, 0], 0
            for self.s in range(slices):
                self.K, self.k = [0, 0], 0
                for self.y in range(height):
                    for self.x in range(width):
                        result.append(self.element())
                        self.seen[self.r, self.s, self.y, self.x] = clip(result[-1], 15)
                        if result[-1]:
                            self.k += 1
                            self.last = clip(result[-1], 15)
            densities.append(self.row_D)
        self.earlier.append(densities)
        return result

    def v(self, i, j, rows_before=0, slices_before=0):
        return self.seen.get((self.r - rows_before, self.s - slices_before, self.y + j, self.x + i), 0)

    def element(self):
        window = [(w, self.v(*place)) for place, w in WINDOW.items()]
        self.W = sum(w for w, value in window if value != 0)
        self.E = sum(w * value for w, value in window)
        self.Q = 4 * sum(w * abs(value) for w, value in window) // self.W if self.W else 0
        if not self.not_zero():
            return 0
        negative = self.negative()
        magnitude = self.magnitude()
        return -magnitude if negative else magnitude

    def not_zero(self):
        left, u, c, d = self.v(-1, 0), self.v(0, -1), self.v(-1, -1), self.v(1, -1)
        g, base, o = prob(self.G), stretch(self.G), self.y * self.width + self.x
        beside = [self.v(i, j, 1) for i, j in ((-1, 0), (1, 0), (0, -1), (0, 1))]
        a = min(2, len([value for value in beside if value]))
        w = bucket(self.W, 0, 2, 4, 6, 9, 12, 16)
        far = self.v(-2, 0) != 0 or self.v(0, -2) != 0
        places = (
            (1, (left != 0) + 2 * (u != 0) + 4 * ((c != 0) + (d != 0)) + 12 * far),
            (2, (self.v(0, 0, 1) != 0) + 2 * (self.v(0, 0, 2) != 0) + 4 * a + 12 * (left != 0)),
            (3, w),
            (4, bucket(o, 0, 2, 5, 10, 20, 80, 200), bucket(self.k, 0, 1, 2, 3, 6, 10, 15)),
            (12, min(11, len([1 for j in range(-3, 1) for i in range(-3, 4) if self.v(i, j) != 0]))),
        )
        contexts = [self.kind.contexts[place] for place in places]
        column, of_slice, around = self.D[self.s, self.y, self.x], self.slice_counters[self.s], [0, 0]
        for y in range(max(self.y - 1, 0), min(self.y + 2, self.height)):
            for x in range(max(self.x - 1, 0), min(self.x + 2, self.width)):
                around = [n + more for n, more in zip(around, self.D[self.s, y, x], strict=True)]
        amounts = [row[0] for row in DENSITY.values()]
        row = blend(self.row_D, amounts[0], g)
        around = blend(around, amounts[2], g)
        blends = [row, blend(column, amounts[1], prob(around)), around, blend(of_slice, amounts[3], g)]
        blends.append(blend(self.K, amounts[4], prob(row)))
        blends += [blend(context, amount, g) for context, amount in zip(contexts, amounts[5:10], strict=True)]
        inputs = [stretch(each) - base for each in blends] + [0, 256]
        if self.link:
            unit = self.link[self.x if self.plain else self.s]
            inputs[10] = stretch(blend(unit, LINK_BLEND, prob(self.link_total))) - stretch(self.link_total)
        self.first_two = inputs[:2]
        decision = self.kind.zero[min(w, 5)].decide(self.stream, base, inputs)
        for counter in (self.row_D, column, of_slice, self.K, self.G):
            hit(counter, decision, DENSITY_LIMIT)
        for counter in contexts:
            hit(counter, decision, CONTEXT_LIMIT)
        return decision

    def negative(self):
        left, u, c, d = (sg(self.v(i, j)) for i, j in ((-1, 0), (0, -1), (-1, -1), (1, -1)))
        e = sg(self.E) * bucket(abs(self.E), 0, 2, 4, 8, 16, 32)
        contexts = self.kind.contexts
        counters = [contexts[5, 3 * left + u], contexts[6, e], contexts[7, 3 * sg(self.v(0, 0, 0, 1)) + sg(self.last)]]
        counters += [contexts[8, 2 * left + 2 * u + c + d], self.S[self.s, self.y, self.x], self.row_S]
        blends = [blend(counter, row[0], 32768) for counter, row in zip(counters, SIGN.values(), strict=True)]
        decision = self.kind.sign.decide(self.stream, 0, [stretch(each) for each in blends])
        for counter in counters:
            hit(counter, decision, CONTEXT_LIMIT)
        return decision

    def magnitude(self):
        near = [abs(self.v(i, j)) for i, j in ((-1, 0), (0, -1), (-1, -1), (1, -1), (-2, 0), (0, -2))]
        n = 2 * near[0] + 2 * near[1] + sum(near[2:])
        contexts = self.kind.contexts
        for m in range(1, 17):
            j = min(m, 8)
            base, p = stretch(self.L[j]), prob(self.L[j])
            counters = [contexts[9, j, bucket(self.Q, 0, 4, 6, 8, 11, 15, 20)], contexts[10, j, min(abs(self.last), 7)]]
            counters += [contexts[11, j, bucket(n, 0, 2, 4, 8)], self.row_M, self.M[self.s, self.y, self.x]]
            blends = [blend(c, row[0], p) for c, row in zip(counters, list(MAGNITUDE.values())[:5], strict=True)]
            inputs = [stretch(each) - base for each in blends] + self.first_two
            decision = self.kind.magnitude[min(m, 3) - 1].decide(self.stream, base, inputs)
            for counter in (self.L[j], *counters):
                hit(counter, decision, CONTEXT_LIMIT)
            if not decision:
                return m
        return 16 + self.escape()

    def escape(self):
        z = 0
        while True:
            if z > 30:
                raise Refused("an escape is too long")
            decision = self.stream.decide(prob(blend(self.X[z], 128, 32768)))
            hit(self.X[z], decision, CONTEXT_LIMIT)
            if not decision:
                break
            z += 1
        r = 1
        for _ in range(z):
            r = 2 * r + self.stream.decide(32768)
        if 16 + r >= 2**31:
            raise Refused("a magnitude is too great")
        return r


def decode(data, geometries):
    """Lists of integers, one for each (rows, slices, height, width); Refused if the page refuses the bytes."""
    elements = sum(rows * slices * height * width for rows, slices, height, width in geometries)
    if elements > 45_500 * (len(data) + 64):
        raise Refused("too many elements")
    decoder = Decoder(data)
    arrays = [decoder.array(*geometry) for geometry in geometries]
    decoder.stream.end()
    return arrays
