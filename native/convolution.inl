// The kernels of sparse convolutions, included by isa_*.cpp after kernels.inl, in the same way.
//
// A block of samples lies side by side, so a stored connection is a scalar times a run of pixels at
// a fixed offset from the output it goes to, whatever kernel size, stride, dilation and padding:
// the inner loop is that of the linear product, with offsets in place of columns.

#include "convolution_units.h"

namespace regrow {
namespace {

REGROW_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
REGROW_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
REGROW_INLINE int64_t clamped(int64_t a, int64_t low, int64_t high) {
  return a < low ? low : a > high ? high : a;
}

template <typename T>
REGROW_INLINE void clear(T* p, int64_t count) {
  for (int64_t i = 0; i < count; ++i) p[i] = T(0);
}

template <typename T>
REGROW_INLINE void copy_pixels(const T* source, T* target, int64_t pixels, int64_t width) {
  constexpr int L = kLanes<T>;
  if (width == L) {
    for (int64_t i = 0; i < pixels; ++i)
      store_unaligned<T, L>(target + i * L, load_unaligned<T, L>(source + i * L));
  } else {
    for (int64_t i = 0; i < pixels * width; ++i) target[i] = source[i];
  }
}

// ---- Packing

// Zeros wherever no pixel of the source goes.
template <typename T>
void clear_margins(const ConvPackUnit<T>& unit, T* packed) {
  const int64_t line_size = unit.phases * unit.room[2] * unit.width;
  for (int64_t i = 0; i < unit.room[0]; ++i) {
    const int64_t d = i * unit.step[0] - unit.margin[0];
    for (int64_t j = 0; j < unit.room[1]; ++j, packed += line_size) {
      const int64_t h = j * unit.step[1] - unit.margin[1];
      if (d < 0 || d >= unit.size[0] || h < 0 || h >= unit.size[1]) {
        clear(packed, line_size);
        continue;
      }
      for (int64_t phase = 0; phase < unit.phases; ++phase) {
        T* const row = packed + phase * unit.room[2] * unit.width;
        const int64_t before = unit.margin[2] - phase;
        const int64_t first =
            before <= 0 ? 0 : smaller(ceil_div(before, unit.step[2]), unit.room[2]);
        const int64_t end = unit.size[2] + before;
        const int64_t last =
            end <= 0 ? first : clamped(ceil_div(end, unit.step[2]), first, unit.room[2]);
        clear(row, first * unit.width);
        clear(row + last * unit.width, (unit.room[2] - last) * unit.width);
      }
    }
  }
}

// Writes `count` pixels of one source line, from pixel `w` on, into their places in a packed line.
template <typename T>
REGROW_INLINE void place(const ConvPackUnit<T>& unit, const T* pixels, int64_t w, int64_t count,
                         T* line) {
  const int64_t step = unit.step[2], width = unit.width;
  int64_t at = w + unit.margin[2];
  if (step == 1) {
    count = smaller(count, unit.room[2] - at);
    copy_pixels(pixels, line + at * width, count, width);
    return;
  }
  int64_t phase = at % step, j = at / step;
  for (int64_t i = 0; i < count; ++i) {
    if (phase < unit.phases && j < unit.room[2])
      copy_pixels(pixels + i * width, line + (phase * unit.room[2] + j) * width, 1, width);
    if (++phase == step) phase = 0, ++j;
  }
}

// Packed line of a line of the source, or -1 if no connection looks at it.
template <typename T>
REGROW_INLINE int64_t packed_line(const ConvPackUnit<T>& unit, int64_t d, int64_t h) {
  const int64_t i = d + unit.margin[0], j = h + unit.margin[1];
  if (i % unit.step[0] != 0 || j % unit.step[1] != 0) return -1;
  if (i / unit.step[0] >= unit.room[0] || j / unit.step[1] >= unit.room[1]) return -1;
  return i / unit.step[0] * unit.room[1] + j / unit.step[1];
}

template <typename T>
void conv_pack(const ConvPackUnit<T>& unit) {
  // Turned in pieces of whole vectors that know no lines, for lines can be short.
  constexpr int64_t kPiece = 64;
  alignas(64) T piece[kPiece * kLanes<T>];
  const int64_t breadth = unit.size[2];
  const int64_t plane = unit.size[0] * unit.size[1] * breadth;
  const int64_t line_size = unit.phases * unit.room[2] * unit.width;
  for (int64_t channel = unit.first; channel < unit.last; ++channel) {
    const T* const source = unit.source + channel * plane;
    T* const packed = unit.packed + channel * unit.plane * unit.width;
    const int64_t used = unit.room[0] * unit.room[1] * line_size;
    clear_margins(unit, packed);
    clear(packed + used, unit.plane * unit.width - used);
    int64_t d = 0, h = 0, w = 0;
    int64_t line = packed_line(unit, d, h);
    for (int64_t start = 0; start < plane; start += kPiece) {
      const int64_t pixels = smaller(kPiece, plane - start);
      turn_in(source + start, unit.sample_stride, piece, unit.width, unit.samples, pixels);
      for (int64_t done = 0; done < pixels;) {
        const int64_t count = smaller(pixels - done, breadth - w);
        if (line >= 0)
          place(unit, piece + done * unit.width, w, count, packed + line * line_size);
        done += count;
        w += count;
        if (w < breadth) continue;
        w = 0;
        if (++h == unit.size[1]) h = 0, ++d;
        line = d < unit.size[0] ? packed_line(unit, d, h) : -1;
      }
    }
  }
}

// ---- Forward

constexpr int kConvForwardRun = REGROW_VECTOR_BYTES >= 32 ? 14 : 8;
constexpr int kConvBackwardRun = REGROW_VECTOR_REGISTERS >= 32 ? 14 : 7;

// Vectors of a run, so that runs of equal length cover a line with little overlap.
REGROW_INLINE int64_t run_length(int64_t vectors, int64_t most) {
  return ceil_div(vectors, ceil_div(vectors, most));
}

template <typename T, int N>
REGROW_INLINE void conv_forward_run(const T* packed, const int32_t* offsets, const T* values,
                                    int64_t count, T bias, int64_t width, T* out) {
  constexpr int L = kLanes<T>;
  constexpr int S = sets_for(N);
  using V = Vector<T, L>;
  V sum[S][N];
  for (int s = 0; s < S; ++s)
    for (int n = 0; n < N; ++n) sum[s][n] = s == 0 ? V{} + bias : V{};
  int64_t k = 0;
  for (; k + S <= count; k += S) {
    for (int s = 0; s < S; ++s) {
      const T* const p = packed + offsets[k + s] * width;
      const T value = values[k + s];
      for (int n = 0; n < N; ++n) sum[s][n] += value * load_unaligned<T, L>(p + n * L);
    }
  }
  for (; k < count; ++k) {
    const T* const p = packed + offsets[k] * width;
    for (int n = 0; n < N; ++n) sum[0][n] += values[k] * load_unaligned<T, L>(p + n * L);
  }
  for (int n = 0; n < N; ++n) {
    V total = sum[0][n];
    for (int s = 1; s < S; ++s) total += sum[s][n];
    store_unaligned<T, L>(out + n * L, total);
  }
}

template <typename T, int N>
void conv_forward_tile(const ConvForwardUnit<T>& unit) {
  constexpr int L = kLanes<T>;
  const ConvTile& tile = unit.tile;
  const int64_t width = unit.width;
  const int64_t vectors = ceil_div(tile.pixels * width, L);
  for (int64_t row = unit.first; row < unit.last; ++row) {
    const int64_t start = unit.indptr[row], count = unit.indptr[row + 1] - start;
    const T bias = unit.bias ? unit.bias[row] : T(0);
    int64_t d = tile.line / unit.height, h = tile.line % unit.height;
    for (int64_t line = 0; line < tile.lines; ++line) {
      const T* const packed =
          unit.packed + (d * unit.jump[0] + h * unit.jump[1] + tile.pixel) * width;
      // What a run writes beyond its line, the next line writes over.
      T* const out = unit.scratch + line * tile.pixels * width;
      for (int64_t end = N;; end += N) {
        const int64_t at = (smaller(end, vectors) - N) * L;
        conv_forward_run<T, N>(packed + at, unit.offsets + start, unit.values + start, count, bias,
                               width, out + at);
        if (end >= vectors) break;
      }
      if (++h == unit.height) h = 0, ++d;
    }
    T* const y = unit.y + row * unit.plane + tile.line * unit.breadth + tile.pixel;
    turn_out(unit.scratch, unit.width, y, unit.sample_stride, unit.samples,
             tile.lines * tile.pixels);
  }
}

// ---- Backward

template <typename T>
struct ConvRun {
  const T* packed;
  const int32_t* offsets;
  const T* values;
  int64_t count;
  int64_t width;
};

// `x` holds `valid` elements, of which those of the first `skipped` vectors were seen before.
template <typename T, int N>
REGROW_INLINE void load_valid(const T* x, int64_t valid, int64_t skipped,
                              Vector<T, kLanes<T>>* xs) {
  constexpr int L = kLanes<T>;
  if (valid >= N * L && skipped == 0) {
    for (int n = 0; n < N; ++n) xs[n] = load_unaligned<T, L>(x + n * L);
    return;
  }
  for (int n = 0; n < N; ++n) {
    xs[n] = Vector<T, L>{};
    if (n < skipped) continue;
    for (int i = 0; i < L && n * L + i < valid; ++i) xs[n][i] = x[n * L + i];
  }
}

template <typename T, int N, bool NeedX, bool NeedValues>
REGROW_INLINE void conv_backward_run(const ConvRun<T>& run, const Vector<T, kLanes<T>>* xs, T* dx,
                                     Vector<T, kLanes<T>>* products) {
  constexpr int L = kLanes<T>;
  using V = Vector<T, L>;
  V total[N];
  for (int n = 0; n < N; ++n) total[n] = V{};
  for (int64_t k = 0; k < run.count; ++k) {
    const T* const p = run.packed + run.offsets[k] * run.width;
    V product;
    if constexpr (NeedValues) product = products[k];
    for (int n = 0; n < N; ++n) {
      V g = load_unaligned<T, L>(p + n * L);
      if constexpr (NeedX && NeedValues) REGROW_KEEP(g);
      if constexpr (NeedX) total[n] += run.values[k] * g;
      if constexpr (NeedValues) product += g * xs[n];
    }
    if constexpr (NeedValues) products[k] = product;
  }
  if constexpr (NeedX)
    for (int n = 0; n < N; ++n) store_unaligned<T, L>(dx + n * L, total[n]);
}

// One phase of one line: `pixels` of them, contiguous in the packed gradient, in x and in dx.
template <typename T, int N, bool NeedX, bool NeedValues>
REGROW_INLINE void conv_backward_line(ConvRun<T> run, const T* x, int64_t pixels, T* dx,
                                      Vector<T, kLanes<T>>* products) {
  constexpr int L = kLanes<T>;
  const int64_t valid = pixels * run.width;
  const int64_t vectors = ceil_div(valid, L);
  const T* const packed = run.packed;
  for (int64_t end = N;; end += N) {
    const int64_t skipped = end > vectors && vectors > N ? end - vectors : 0;
    const int64_t at = (end - N - skipped) * L;
    Vector<T, L> xs[N];
    if constexpr (NeedValues) load_valid<T, N>(x + at, valid - at, skipped, xs);
    run.packed = packed + at;
    conv_backward_run<T, N, NeedX, NeedValues>(run, xs, dx + at, products);
    if (end >= vectors) break;
  }
}

// Between a line and its phases, which follow each other at `room` elements.
template <typename T, bool Split>
REGROW_INLINE void exchange_phases(T* line, T* phases, int64_t room, int64_t pixels, int64_t stride,
                                   int64_t width) {
  int64_t phase = 0, j = 0;
  for (int64_t i = 0; i < pixels; ++i) {
    T* const whole = line + i * width;
    T* const part = phases + phase * room + j * width;
    copy_pixels(Split ? whole : part, Split ? part : whole, 1, width);
    if (++phase == stride) phase = 0, ++j;
  }
}

template <typename T>
struct ConvScratch {
  static constexpr int L = kLanes<T>;
  T* x;
  T* dx;
  T* x_phases;
  T* dx_phases;
  int64_t room;  // of one phase
  Vector<T, L>* products;

  explicit ConvScratch(const ConvBackwardUnit<T>& unit) {
    const int64_t slack = kConvSlack * L;
    const int64_t tile = ceil_div(unit.tile.lines * unit.tile.pixels * unit.width, L) * L + slack;
    room = ceil_div(ceil_div(unit.tile.pixels, unit.stride[2]) * unit.width, L) * L + slack;
    const int64_t phases = unit.stride[2] > 1 ? unit.stride[2] * room : 0;
    x = unit.scratch;
    dx = x + tile;
    x_phases = dx + tile;
    dx_phases = x_phases + phases;
    products = reinterpret_cast<Vector<T, L>*>(dx_phases + phases);
  }
};

template <typename T, int N, bool NeedX, bool NeedValues>
REGROW_INLINE void conv_backward_channel(const ConvBackwardUnit<T>& unit,
                                         const ConvScratch<T>& scratch, int64_t channel) {
  const ConvTile& tile = unit.tile;
  const int64_t stride = unit.stride[2], width = unit.width;
  const int64_t classes = unit.stride[0] * unit.stride[1] * stride;
  const int64_t* const starts = unit.starts + channel * classes;
  for (int64_t line = 0; line < tile.lines; ++line) {
    const int64_t d = (tile.line + line) / unit.height, h = (tile.line + line) % unit.height;
    const int64_t first = (d % unit.stride[0] * unit.stride[1] + h % unit.stride[1]) * stride;
    const int64_t at = d / unit.stride[0] * unit.jump[0] + h / unit.stride[1] * unit.jump[1] +
                       tile.pixel / stride;
    T* const x = scratch.x + line * tile.pixels * width;
    T* const dx = scratch.dx + line * tile.pixels * width;
    if (NeedValues && stride > 1)
      exchange_phases<T, true>(x, scratch.x_phases, scratch.room, tile.pixels, stride, width);
    for (int64_t phase = 0; phase < stride && phase < tile.pixels; ++phase) {
      const int64_t start = starts[first + phase];
      const ConvRun<T> run{unit.packed + at * width, unit.offsets + start, unit.values + start,
                           starts[first + phase + 1] - start, width};
      const int64_t shift = phase * scratch.room;
      conv_backward_line<T, N, NeedX, NeedValues>(
          run, stride > 1 ? scratch.x_phases + shift : x,
          ceil_div(tile.pixels - phase, stride), stride > 1 ? scratch.dx_phases + shift : dx,
          scratch.products + (start - starts[0]));
    }
    if (NeedX && stride > 1)
      exchange_phases<T, false>(dx, scratch.dx_phases, scratch.room, tile.pixels, stride, width);
  }
}

template <typename T, int N, bool NeedX, bool NeedValues>
void conv_backward_tile(const ConvBackwardUnit<T>& unit) {
  constexpr int L = kLanes<T>;
  const ConvScratch<T> scratch(unit);
  const ConvTile& tile = unit.tile;
  const int64_t classes = unit.stride[0] * unit.stride[1] * unit.stride[2];
  for (int64_t channel = unit.first; channel < unit.last; ++channel) {
    const int64_t start = unit.starts[channel * classes];
    const int64_t count = unit.starts[(channel + 1) * classes] - start;
    const int64_t place = channel * unit.plane + tile.line * unit.breadth + tile.pixel;
    if constexpr (NeedValues) {
      if (!NeedX && count == 0) continue;
      turn_in(unit.x + place, unit.sample_stride, scratch.x, unit.width, unit.samples,
              tile.lines * tile.pixels);
      for (int64_t k = 0; k < ceil_div(count, L) * L; ++k) scratch.products[k] = Vector<T, L>{};
    }
    conv_backward_channel<T, N, NeedX, NeedValues>(unit, scratch, channel);
    if constexpr (NeedValues)
      for (int64_t k = 0; k < count; k += kGroup<T, L>)
        add_sums<T, L>(scratch.products + k, static_cast<int>(smaller(kGroup<T, L>, count - k)),
                       unit.dvalues + start + k);
    if constexpr (NeedX)
      turn_out(scratch.dx, unit.width, unit.dx + place, unit.sample_stride, unit.samples,
               tile.lines * tile.pixels);
  }
}

// ---- Choice of the run length at run time

template <typename T, int N>
void conv_forward_from(const ConvForwardUnit<T>& unit, int64_t length) {
  if constexpr (N > 1)
    if (length < N) return conv_forward_from<T, N - 1>(unit, length);
  conv_forward_tile<T, N>(unit);
}

template <typename T>
void conv_forward(const ConvForwardUnit<T>& unit) {
  const int64_t vectors = ceil_div(unit.tile.pixels * unit.width, kLanes<T>);
  conv_forward_from<T, kConvForwardRun>(unit, run_length(vectors, kConvForwardRun));
}

template <typename T, int N>
void conv_backward_from(const ConvBackwardUnit<T>& unit, int64_t length) {
  if constexpr (N > 1)
    if (length < N) return conv_backward_from<T, N - 1>(unit, length);
  if (unit.dx && unit.dvalues) {
    conv_backward_tile<T, N, true, true>(unit);
  } else if (unit.dx) {
    conv_backward_tile<T, N, true, false>(unit);
  } else {
    conv_backward_tile<T, N, false, true>(unit);
  }
}

template <typename T>
void conv_backward(const ConvBackwardUnit<T>& unit) {
  const int64_t pixels = ceil_div(unit.tile.pixels, unit.stride[2]);
  const int64_t vectors = ceil_div(pixels * unit.width, kLanes<T>);
  conv_backward_from<T, kConvBackwardRun>(unit, run_length(vectors, kConvBackwardRun));
}

template <typename T>
constexpr ConvKernels<T> conv_kernels() {
  return {kLanes<T>,     kConvForwardRun,  kConvBackwardRun,
          &conv_pack<T>, &conv_forward<T>, &conv_backward<T>};
}

}  // namespace

extern const ConvIsa REGROW_CONV = {conv_kernels<float>(), conv_kernels<double>()};

}  // namespace regrow
