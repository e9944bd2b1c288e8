#include "bundle_files.h"

#include "crc32c.h"
#include "external_data.h"
#include "failure.h"
#include "sha256.h"

#include <algorithm>

namespace bitfit {
namespace {

// Compares a file with its record while it is read.
class Check {
 public:
  Check(std::string path, const FileRecord& record, bool check_hash)
      : path_(std::move(path)), record_(record), check_hash_(check_hash), file_(path_) {
    if (file_.size() != record_.size) {
      refuse_bundle(text_of(path_, " has ", file_.size(), " bytes, expected ", record_.size));
    }
  }

  const OpenFile& file() const noexcept { return file_; }

  Bytes read_whole(std::uint64_t limit) {
    if (record_.size > limit) {
      refuse_bundle(text_of(path_, " has ", record_.size, " bytes, expected at most ", limit));
    }
    Bytes bytes(static_cast<std::size_t>(record_.size));
    read(bytes.data(), bytes.size());
    finish();
    return bytes;
  }

  void read_in_passing() {
    std::vector<std::uint8_t> buffer(std::size_t{1} << 18);  // it stays in the processor's cache
    for (std::uint64_t left = record_.size; left > 0;) {
      const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(left, buffer.size()));
      read(buffer.data(), size);
      left -= size;
    }
    finish();
  }

 private:
  void read(std::uint8_t* data, std::size_t size) {
    const std::size_t found = file_.read(data, size);
    if (found < size)
      refuse_bundle(text_of(path_, " became shorter while it was read, expected ", record_.size, " bytes"));
    crc_.update(data, size);
    if (check_hash_) hash_.update(data, size);
  }

  void finish() {
    if (crc_.value() != record_.crc32c) {
      refuse_bundle(text_of(path_, " has crc32c ", crc_.value(), ", expected ", record_.crc32c));
    }
    const std::string found = check_hash_ ? hex_of(hash_.finish()) : record_.sha256;
    if (found != record_.sha256) refuse_bundle(text_of(path_, " has sha256 ", found, ", expected ", record_.sha256));
  }

  const std::string path_;
  const FileRecord& record_;
  const bool check_hash_;
  OpenFile file_;
  Crc32c crc_;
  Sha256 hash_;
};

// An accelerator's library would read any other file without a check.
void check_binaries(const std::vector<std::string>& named, const Manifest& manifest, const std::string& path) {
  const std::string expected = manifest.accelerator ? manifest.accelerator->binary : std::string();
  if (named == (manifest.accelerator ? std::vector{expected} : std::vector<std::string>())) return;
  std::string found;
  for (const std::string& each : named) found += (found.empty() ? "\"" : ", \"") + shown(each) + '"';
  refuse_bundle(text_of("the program ", path, " loads ", found.empty() ? "no context binary" : found, ", expected ",
                        expected.empty() ? "none" : "\"" + shown(expected) + '"', " as in the manifest"));
}

}  // namespace

BundleFiles::BundleFiles(const std::string& folder, const Manifest& manifest, const ProgramRecord& program,
                         bool check_hashes)
    : folder_(folder) {
  for (const auto& [path, record] : manifest.files) {
    Check check(folder + "/" + path, record, check_hashes);
    if (path == program.file) {
      model = check.read_whole(max_model_size);
    } else if (path == tokenizer_file) {
      tokenizer = check.read_whole(max_tokenizer_size);
    } else {
      check.read_in_passing();
      identities_[path] = check.file().identity();
    }
  }
  const ExternalFiles named = external_files(text_in(model));
  check_binaries(named.binaries, manifest, folder + "/" + program.file);
  for (const std::string& path : named.weights) {
    if (manifest.files.count(path) > 0) continue;
    refuse_bundle(text_of("the model ", folder, '/', program.file, " has weights in the file \"", shown(path),
                          "\", which the manifest does not name"));
  }
}

void BundleFiles::check_unchanged() const {
  for (const auto& [path, identity] : identities_) {
    if (OpenFile(folder_ + "/" + path).identity() == identity) continue;
    refuse_bundle(text_of(folder_, '/', path, " was changed while the bundle was opened"));
  }
}

}  // namespace bitfit
