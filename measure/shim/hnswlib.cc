// The calls of hnswlib that a comparison needs, in C. No exception leaves this file: a call that
// failed says so by its result.

#include <cstddef>
#include <exception>
#include <hnswlib/hnswlib.h>

namespace {

struct Index {
  hnswlib::InnerProductSpace space;
  hnswlib::HierarchicalNSW<float> graph;

  Index(size_t dimension, size_t capacity, size_t links, size_t ef_construction)
      : space(dimension), graph(&space, capacity, links, ef_construction) {}
};

} // namespace

extern "C" {

void *askonce_hnswlib_new(size_t dimension, size_t capacity, size_t links,
                          size_t ef_construction) {
  try {
    return new Index(dimension, capacity, links, ef_construction);
  } catch (const std::exception &) {
    return nullptr;
  }
}

void askonce_hnswlib_free(void *index) { delete static_cast<Index *>(index); }

int askonce_hnswlib_insert(void *index, const float *row, size_t label) {
  try {
    static_cast<Index *>(index)->graph.addPoint(row, label);
    return 1;
  } catch (const std::exception &) {
    return 0;
  }
}

int askonce_hnswlib_delete(void *index, size_t label) {
  try {
    static_cast<Index *>(index)->graph.markDelete(label);
    return 1;
  } catch (const std::exception &) {
    return 0;
  }
}

void askonce_hnswlib_set_ef(void *index, size_t ef) {
  static_cast<Index *>(index)->graph.setEf(ef);
}

// Writes up to `k` labels and inner products, best first, and returns how many; negative on failure.
long askonce_hnswlib_search(const void *index, const float *query, size_t k, size_t *labels,
                            float *scores) {
  try {
    // Not `const` in older versions, though nothing changes.
    auto &graph = const_cast<Index *>(static_cast<const Index *>(index))->graph;
    auto found = graph.searchKnn(query, k);
    const long count = static_cast<long>(found.size());
    for (long at = count - 1; at >= 0; --at) {
      labels[at] = found.top().second;
      scores[at] = 1.0f - found.top().first;
      found.pop();
    }
    return count;
  } catch (const std::exception &) {
    return -1;
  }
}

} // extern "C"
