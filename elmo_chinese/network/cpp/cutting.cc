// Words of texts by a dictionary (segmenter.py).
#include <cstdint>
#include <vector>

namespace {

// A dictionary as a tree of the beginnings of its words, kept in a hash table: a beginning's place in the table stands
// for it, and its key is the place of the beginning without the last character, and that character.
class Tree {
 public:
  Tree(int64_t size, int64_t* keys, int32_t* words) : root(size), size_(size), keys_(keys), words_(words) {
    while ((int64_t{1} << (64 - shift_)) < size) --shift_;
  }
  // The place of a beginning with one character more, or, if there is none, the empty one where it belongs.
  int64_t find(int64_t beginning, int32_t character) const {
    const int64_t key = beginning << 21 | character;
    int64_t place = static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15u >> shift_;
    while (keys_[place] != key && keys_[place] != kEmpty) place = (place + 1) & (size_ - 1);
    return place;
  }
  bool empty(int64_t place) const { return keys_[place] == kEmpty; }
  int32_t word(int64_t place) const { return words_[place]; }  // its number; below 0: a beginning only
  void add(const int32_t* characters, int64_t length, int32_t number) {
    int64_t place = root;
    for (int64_t k = 0; k < length; ++k) {
      const int64_t key = place << 21 | characters[k];
      place = find(place, characters[k]);
      keys_[place] = key;
    }
    words_[place] = number;
  }
  const int64_t root;

 private:
  static constexpr int64_t kEmpty = -1;
  int64_t size_, shift_ = 63;
  int64_t* keys_;
  int32_t* words_;
};

inline bool letter_or_digit(int32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// Mark in `last` the last characters of the pieces of a text: those of the path with the largest sum of scores, found
// from the right; of equal ones the longer piece. `alone` is the score of a character that is no word.
void cut_text(const Tree& tree, const double* scores, double alone, const int32_t* text, int64_t length,
              std::vector<double>& best, std::vector<int64_t>& ends, int32_t* last) {
  best.assign(length + 1, 0.0);
  ends.resize(length);
  for (int64_t start = length - 1; start >= 0; --start) {
    int64_t place = tree.find(tree.root, text[start]);
    const bool known = !tree.empty(place) && tree.word(place) >= 0;
    double most = (known ? scores[tree.word(place)] : alone) + best[start + 1];
    int64_t end_of_most = start + 1;
    for (int64_t end = start + 1; end < length && !tree.empty(place); ++end) {
      place = tree.find(place, text[end]);
      if (tree.empty(place) || tree.word(place) < 0) continue;
      const double score = scores[tree.word(place)] + best[end + 1];
      if (score >= most) most = score, end_of_most = end + 1;
    }
    best[start] = most;
    ends[start] = end_of_most;
  }
  for (int64_t start = 0; start < length;) {
    const auto single = [&](int64_t k) { return ends[k] == k + 1 && letter_or_digit(text[k]); };
    int64_t end = ends[start];
    if (single(start))  // letters and digits that stand alone stay together
      while (end < length && single(end)) ++end;
    last[end - 1] = 1;
    start = end;
  }
}

}  // namespace

extern "C" {

// Make the tree of `words` words; keys (all below 0) and numbers (all below 0) have `size` places, a power of two that is
// more than the words have characters.
void plant_tree(int64_t words, int64_t size, const int64_t* const* lengths, const int32_t* const* characters,
                int64_t* const* keys, int32_t* const* numbers) {
  Tree tree(size, keys[0], numbers[0]);
  const int32_t* word = characters[0];
  for (int64_t k = 0; k < words; word += lengths[0][k++]) tree.add(word, lengths[0][k], static_cast<int32_t>(k));
}

// Mark in `last` (all 0) the last characters of the pieces of texts, that stand one after the other in `characters`.
// scores: of the words, and behind them that of a character that is none. changed, if there: how many words have another
// score in each text; which, and what score.
void cut_texts(int64_t texts, int64_t words, int64_t size, const int64_t* const* lengths,
               const int32_t* const* characters, int64_t* const* keys, int32_t* const* numbers,
               const double* const* scores, const int64_t* const* changed, const double* const* other_scores,
               int32_t* const* last) {
  const Tree tree(size, keys[0], numbers[0]);
  std::vector<double> now(changed[0] ? scores[0] : nullptr, changed[0] ? scores[0] + words : nullptr), best;
  std::vector<int64_t> ends;
  const double* score = changed[0] ? now.data() : scores[0];
  for (int64_t k = 0, place = 0, change = 0; k < texts; place += lengths[0][k++]) {
    const int64_t from = change, to = change + (changed[0] ? changed[0][k] : 0);
    for (; change < to; ++change) now[changed[1][change]] = other_scores[0][change];
    cut_text(tree, score, scores[0][words], characters[0] + place, lengths[0][k], best, ends, last[0] + place);
    for (change = from; change < to; ++change) now[changed[1][change]] = scores[0][changed[1][change]];
  }
}

}  // extern "C"
