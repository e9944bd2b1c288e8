// The C API's part for rows. It is freestanding, as the reader is.

#include <bitfit/bias_row.h>
#include <bitfit/row.h>

using bitfit::BiasRowView;
using bitfit::RowStatus;

extern "C" int bitfit_row_read(const void* data, size_t size, const uint8_t* layout_digest, uint32_t bias_count,
                               bitfit_row* row) {
  if ((data == nullptr && size != 0) || layout_digest == nullptr || row == nullptr) return BITFIT_ROW_NULL_ARGUMENT;
  BiasRowView view;
  RowStatus status = bitfit::read_bias_row(data, size, &view);
  if (status == RowStatus::ok) status = bitfit::check_layout(view, layout_digest, bias_count);
  if (status != RowStatus::ok) return static_cast<int>(status);
  row->dtype = static_cast<uint32_t>(view.dtype);
  row->problem_type = static_cast<uint32_t>(view.problem_type);
  row->labels = view.labels;
  row->task_version = view.task_version;
  row->bias_count = view.bias_count;
  row->head_count = view.head_count;
  row->task = view.task;
  row->payload = view.payload;
  row->payload_size = view.payload_size;
  for (uint32_t t = 0; t < bitfit::max_head_tensors; ++t) {
    row->heads[t].rank = view.heads[t].rank;
    for (uint32_t axis = 0; axis < bitfit::max_head_rank; ++axis) row->heads[t].dim[axis] = view.heads[t].dim[axis];
    row->heads[t].offset = view.heads[t].offset;
    row->heads[t].size = view.heads[t].size;
  }
  return 0;
}

extern "C" const char* bitfit_row_status_text(int status) {
  if (status == BITFIT_ROW_NULL_ARGUMENT) return "an argument is NULL";
  const bool known = status >= 0 && status <= static_cast<int>(RowStatus::wrong_layout);
  return known ? bitfit::row_status_text(static_cast<RowStatus>(status)) : "unknown status";
}

extern "C" float bitfit_row_value(const bitfit_row* row, size_t i) {
  if (row == nullptr) {
    const uint32_t not_a_number = 0x7FC00000u;
    float value;
    std::memcpy(&value, &not_a_number, sizeof value);
    return value;
  }
  BiasRowView view;
  view.dtype = static_cast<bitfit::Dtype>(row->dtype);
  view.payload = row->payload;
  view.payload_size = row->payload_size;
  return view.value(i);
}
