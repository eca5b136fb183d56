// What the machine can do: the answer of the trace engine's benchmark with the quickest parts there are.
//
// libisal inflates, simdjson's On-Demand parser reads just the fields that the answer needs. Output is one JSON
// array with an entry per file: kernels by name with count and sum of durations, and the GPU time (union of its
// kernels' intervals) of each decode step in time order. A step owns the kernels whose correlation is that of a
// launch record inside its label. All times are integer nanoseconds.
//
// It is a yardstick, not a reader: only kineto's plain layout, one process per trace, and any fault ends it.
//
//   floor [-j PROCESSES] FILE...     one file is shared out by blocks, several are shared out whole

#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <simdjson.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace {

using std::size_t;
using std::string;
using std::string_view;
using std::vector;
namespace ondemand = simdjson::ondemand;

constexpr size_t kPiece = 256 << 10;
constexpr size_t kInput = 64 << 10;
constexpr size_t kPadding = simdjson::SIMDJSON_PADDING;

[[noreturn]] void fail(const string& what) {
  std::fprintf(stderr, "floor: %s\n", what.c_str());
  std::exit(2);
}

// Text of a gzip file, appended piece by piece; members follow each other as one text.
class Inflater {
 public:
  explicit Inflater(const char* path) : fd_(open(path, O_RDONLY)), input_(kInput) {
    if (fd_ < 0) fail(string("cannot open ") + path);
    reset();
  }
  ~Inflater() { close(fd_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Writes up to `room` bytes to `out`; 0 at the end.
  size_t read(char* out, size_t room) {
    state_.next_out = reinterpret_cast<uint8_t*>(out);
    state_.avail_out = static_cast<uint32_t>(room);
    while (state_.avail_out != 0) {
      if (state_.avail_in == 0) {
        const ssize_t got = ::read(fd_, input_.data(), input_.size());
        if (got < 0) fail("read error");
        if (got == 0) {
          if (!at_member_start_) fail("the gzip stream ends early");
          break;
        }
        state_.next_in = input_.data();
        state_.avail_in = static_cast<uint32_t>(got);
      }
      at_member_start_ = false;
      if (isal_inflate(&state_) < 0) fail("the gzip stream is damaged");
      if (state_.block_state == ISAL_BLOCK_FINISH) {
        uint8_t* next_in = state_.next_in;
        uint8_t* next_out = state_.next_out;
        const uint32_t avail_in = state_.avail_in, avail_out = state_.avail_out;
        reset();
        state_.next_in = next_in, state_.avail_in = avail_in;
        state_.next_out = next_out, state_.avail_out = avail_out;
      }
    }
    return room - state_.avail_out;
  }

 private:
  void reset() {
    isal_inflate_init(&state_);
    state_.crc_flag = ISAL_GZIP;
    at_member_start_ = true;
  }

  int fd_;
  vector<uint8_t> input_;
  inflate_state state_{};
  bool at_member_start_ = true;
};

struct Kernel {
  int64_t start, dur, link;
  int32_t name;
};
struct Call {
  int64_t at, link;
};
struct Label {
  int64_t start, end;
};

struct Events {
  vector<string> names;
  vector<Kernel> kernels;
  vector<Call> calls;
  vector<Label> decodes;
};

int64_t nanoseconds(string_view token) {
  int64_t whole = 0, fraction = 0;
  int digits = 0;
  size_t at = 0;
  for (; at < token.size() && token[at] >= '0' && token[at] <= '9'; ++at) whole = whole * 10 + (token[at] - '0');
  if (at < token.size() && token[at] == '.') {
    for (++at; at < token.size() && digits < 3 && token[at] >= '0' && token[at] <= '9'; ++at, ++digits)
      fraction = fraction * 10 + (token[at] - '0');
  }
  for (; digits < 3; ++digits) fraction *= 10;
  return whole * 1000 + fraction;
}

string_view trimmed(string_view token) {
  while (!token.empty() && (token.back() == ' ' || token.back() == '\n')) token.remove_suffix(1);
  return token;
}

class Reader {
 public:
  Events events;

  // Decodes `[` events `]`, which lies in a buffer with room for the parser's padding.
  void take(const char* text, size_t length, size_t capacity) {
    ondemand::document document;
    if (parser_.iterate(text, length, capacity).get(document)) fail("a block is no JSON");
    ondemand::array array;
    if (document.get_array().get(array)) fail("a block is no array");
    for (auto element : array) {
      ondemand::object event;
      if (element.get_object().get(event)) fail("an event is no object");
      string_view category;
      if (event["cat"].get_string().get(category)) continue;
      if (category == "kernel") {
        kernel(event);
      } else if (category == "cuda_runtime" || category == "cuda_driver") {
        call(event);
      } else if (category == "user_annotation") {
        label(event);
      }
    }
  }

 private:
  static int64_t time(ondemand::object& event, const char* key) {
    ondemand::value value;
    if (event[key].get(value)) fail(string("an event has no ") + key);
    return nanoseconds(value.raw_json_token());
  }

  static int64_t correlation(ondemand::object& event) {
    ondemand::object args;
    int64_t link = -1;
    if (event["args"].get_object().get(args)) return -1;
    if (args["correlation"].get_int64().get(link)) return -1;
    return link;
  }

  static string_view name(ondemand::object& event) {
    ondemand::value value;
    if (event["name"].get(value)) fail("an event has no name");
    return trimmed(value.raw_json_token());
  }

  void kernel(ondemand::object& event) {
    const string_view text = name(event);
    auto found = numbers_.find(text);
    if (found == numbers_.end()) {
      keys_.push_back(std::make_unique<string>(text));
      events.names.emplace_back(text);
      found = numbers_.emplace(*keys_.back(), static_cast<int32_t>(numbers_.size())).first;
    }
    Kernel row{};
    row.name = found->second;
    row.start = time(event, "ts");
    row.dur = time(event, "dur");
    row.link = correlation(event);
    events.kernels.push_back(row);
  }

  void call(ondemand::object& event) {
    Call row{};
    row.at = time(event, "ts");
    row.link = correlation(event);
    events.calls.push_back(row);
  }

  void label(ondemand::object& event) {
    constexpr string_view kDecode = "\"decode[";
    if (name(event).substr(0, kDecode.size()) != kDecode) return;
    Label row{};
    row.start = time(event, "ts");
    row.end = row.start + time(event, "dur");
    events.decodes.push_back(row);
  }

  ondemand::parser parser_;
  std::unordered_map<string_view, int32_t> numbers_;
  vector<std::unique_ptr<string>> keys_;
};

// End of the last event that is followed by another one: the place of the comma between them, 0 if none.
size_t last_comma(const char* text, size_t size) {
  size_t place = size;
  while (place > 0) {
    const void* brace = memrchr(text, '{', place);
    if (brace == nullptr) return 0;
    place = static_cast<size_t>(static_cast<const char*>(brace) - text);
    size_t at = place;
    auto back = [&] {
      while (at > 0 && (text[at - 1] == ' ' || text[at - 1] == '\n')) --at;
      return at > 0 ? text[at - 1] : '\0';
    };
    if (back() != ',') continue;
    const size_t comma = --at;
    if (back() == '}') return comma;
  }
  return 0;
}

// Reads every `of`-th block of a file, from the `share`-th on.
Events read_share(const char* path, int share, int of) {
  Inflater source(path);
  Reader reader;
  vector<char> text(4 * kPiece + kPadding);
  // text[0] holds the bracket that opens the block, the pending text follows.
  size_t size = 1;
  bool inside = false;
  int block = 0;
  while (true) {
    if (size + kPiece + kPadding > text.size()) text.resize(text.size() * 2);
    const size_t got = source.read(text.data() + size, kPiece);
    size += got;
    if (!inside) {
      const string_view head(text.data() + 1, size - 1);
      const size_t key = head.find("\"traceEvents\": [");
      if (key == string_view::npos) {
        if (got == 0) fail("there is no traceEvents array");
        continue;
      }
      const size_t start = 1 + key + strlen("\"traceEvents\": [");
      std::memmove(text.data() + 1, text.data() + start, size - start);
      size -= start - 1;
      inside = true;
    }
    text[0] = '[';
    if (got == 0) {
      // The last block ends at the array's bracket; what follows is the document's tail.
      const string_view rest(text.data(), size);
      const size_t end = rest.rfind("],");
      if (end == string_view::npos) fail("the events do not end");
      if (block % of == share) reader.take(text.data(), end + 1, text.size());
      return std::move(reader.events);
    }
    const size_t comma = last_comma(text.data(), size);
    if (comma == 0) continue;
    text[comma] = ']';
    if (block++ % of == share) reader.take(text.data(), comma + 1, text.size());
    std::memmove(text.data() + 1, text.data() + comma + 1, size - comma - 1);
    size -= comma;
  }
}

string answer(Events& events) {
  std::sort(events.decodes.begin(), events.decodes.end(), [](auto& a, auto& b) { return a.start < b.start; });
  std::unordered_map<int64_t, int32_t> owner;
  for (const Call& call : events.calls) {
    if (call.link <= 0) continue;
    auto after = std::upper_bound(events.decodes.begin(), events.decodes.end(), call.at,
                                  [](int64_t at, const Label& label) { return at < label.start; });
    if (after == events.decodes.begin() || call.at > (after - 1)->end) continue;
    owner[call.link] = static_cast<int32_t>(after - 1 - events.decodes.begin());
  }
  vector<int64_t> counts(events.names.size()), sums(events.names.size());
  vector<vector<std::pair<int64_t, int64_t>>> owned(events.decodes.size());
  int64_t last_link = -1;
  int32_t last_step = -1;
  for (const Kernel& kernel : events.kernels) {
    ++counts[static_cast<size_t>(kernel.name)];
    sums[static_cast<size_t>(kernel.name)] += kernel.dur;
    if (kernel.link != last_link) {
      const auto found = owner.find(kernel.link);
      last_link = kernel.link;
      last_step = found == owner.end() ? -1 : found->second;
    }
    if (last_step >= 0)
      owned[static_cast<size_t>(last_step)].emplace_back(kernel.start, kernel.start + kernel.dur);
  }
  string out = "{\"kernels\": {";
  for (size_t n = 0; n < events.names.size(); ++n) {
    if (n != 0) out += ", ";
    out += events.names[n] + ": [" + std::to_string(counts[n]) + ", " + std::to_string(sums[n]) + "]";
  }
  out += "}, \"decode_ns\": [";
  for (size_t n = 0; n < owned.size(); ++n) {
    auto& spans = owned[n];
    std::sort(spans.begin(), spans.end());
    int64_t busy = 0, reach = 0;
    for (const auto& [start, end] : spans) {
      busy += std::max<int64_t>(0, end - std::max(start, reach));
      reach = std::max(reach, end);
    }
    if (n != 0) out += ", ";
    out += std::to_string(busy);
  }
  return out + "]}";
}

// A growing shared memory file through which a child hands over what it has.
class Parcel {
 public:
  Parcel() : fd_(memfd_create("floor", 0)) {
    if (fd_ < 0) fail("memfd_create failed");
  }
  void put(const void* data, size_t bytes) const {
    const char* from = static_cast<const char*>(data);
    while (bytes != 0) {
      const ssize_t wrote = write(fd_, from, bytes);
      if (wrote <= 0) fail("write error");
      from += wrote;
      bytes -= static_cast<size_t>(wrote);
    }
  }
  void rewind() const { lseek(fd_, 0, SEEK_SET); }
  void get(void* data, size_t bytes) const {
    char* to = static_cast<char*>(data);
    while (bytes != 0) {
      const ssize_t got = read(fd_, to, bytes);
      if (got <= 0) fail("a child left too little");
      to += got;
      bytes -= static_cast<size_t>(got);
    }
  }
  template <class Row>
  void put_rows(const vector<Row>& rows) const {
    const uint64_t count = rows.size();
    put(&count, sizeof count);
    put(rows.data(), count * sizeof(Row));
  }
  template <class Row>
  size_t get_rows(vector<Row>& rows) const {
    uint64_t count = 0;
    get(&count, sizeof count);
    const size_t before = rows.size();
    rows.resize(before + count);
    get(rows.data() + before, count * sizeof(Row));
    return before;
  }

 private:
  int fd_;
};

void send(const Events& events, const Parcel& parcel) {
  vector<char> names;
  for (const string& name : events.names) {
    names.insert(names.end(), name.begin(), name.end());
    names.push_back('\0');
  }
  parcel.put_rows(names);
  parcel.put_rows(events.kernels);
  parcel.put_rows(events.calls);
  parcel.put_rows(events.decodes);
}

void receive(Events& events, const Parcel& parcel) {
  parcel.rewind();
  vector<char> names;
  parcel.get_rows(names);
  std::unordered_map<string, int32_t> numbers;
  for (size_t n = 0; n < events.names.size(); ++n) numbers.emplace(events.names[n], static_cast<int32_t>(n));
  vector<int32_t> number_of;
  for (size_t at = 0; at < names.size(); at += strlen(&names[at]) + 1) {
    const auto [found, is_new] = numbers.emplace(&names[at], static_cast<int32_t>(numbers.size()));
    if (is_new) events.names.emplace_back(&names[at]);
    number_of.push_back(found->second);
  }
  const size_t first = parcel.get_rows(events.kernels);
  for (size_t n = first; n < events.kernels.size(); ++n)
    events.kernels[n].name = number_of[static_cast<size_t>(events.kernels[n].name)];
  parcel.get_rows(events.calls);
  parcel.get_rows(events.decodes);
}

void wait_for(const vector<pid_t>& children) {
  for (const pid_t child : children) {
    int status = 0;
    if (waitpid(child, &status, 0) < 0 || status != 0) fail("a child failed");
  }
}

string one_file(const char* path, int processes) {
  vector<Parcel> parcels(static_cast<size_t>(processes - 1));
  vector<pid_t> children;
  for (int share = 1; share < processes; ++share) {
    const pid_t child = fork();
    if (child == 0) {
      send(read_share(path, share, processes), parcels[static_cast<size_t>(share - 1)]);
      _exit(0);
    }
    children.push_back(child);
  }
  Events events = read_share(path, 0, processes);
  wait_for(children);
  for (const Parcel& parcel : parcels) receive(events, parcel);
  return answer(events);
}

vector<string> many_files(const vector<const char*>& paths, int processes) {
  vector<size_t> order(paths.size());
  std::iota(order.begin(), order.end(), 0);
  auto bytes = [&](size_t n) {
    struct stat facts {};
    return stat(paths[n], &facts) == 0 ? facts.st_size : 0;
  };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return bytes(a) > bytes(b); });
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) fail("mmap failed");
  auto* next = new (page) std::atomic<size_t>(0);
  vector<Parcel> parcels(paths.size());
  vector<string> answers(paths.size());
  auto work = [&](bool here) {
    for (size_t turn = (*next)++; turn < order.size(); turn = (*next)++) {
      const size_t n = order[turn];
      Events events = read_share(paths[n], 0, 1);
      const string text = answer(events);
      if (here)
        answers[n] = text;
      else
        parcels[n].put_rows(vector<char>(text.begin(), text.end()));
    }
  };
  vector<pid_t> children;
  for (int extra = 1; extra < processes; ++extra) {
    const pid_t child = fork();
    if (child == 0) {
      work(false);
      _exit(0);
    }
    children.push_back(child);
  }
  work(true);
  wait_for(children);
  for (size_t n = 0; n < paths.size(); ++n) {
    if (!answers[n].empty()) continue;
    vector<char> text;
    parcels[n].rewind();
    parcels[n].get_rows(text);
    answers[n].assign(text.begin(), text.end());
  }
  return answers;
}

}  // namespace

int main(int argc, char** argv) {
  int processes = 1;
  int first = 1;
  if (argc > 2 && string_view(argv[1]) == "-j") {
    processes = std::max(1, std::atoi(argv[2]));
    first = 3;
  }
  const vector<const char*> paths(argv + first, argv + argc);
  if (paths.empty()) fail("usage: floor [-j PROCESSES] FILE...");
  const vector<string> answers =
      paths.size() == 1 ? vector<string>{one_file(paths[0], processes)} : many_files(paths, processes);
  std::fputs("[", stdout);
  for (size_t n = 0; n < answers.size(); ++n) std::printf("%s%s", n != 0 ? ",\n" : "", answers[n].c_str());
  std::fputs("]\n", stdout);
  return 0;
}
