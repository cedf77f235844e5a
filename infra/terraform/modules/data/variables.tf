variable "grid" {
  description = "Name of the grid."
  type        = string
}

variable "account" {
  description = "Account whose bucket may send to the queue of uploads."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket."
  type        = string
}

variable "kms_key_arn" {
  description = "Key of the customer, or null."
  type        = string
}

variable "point_in_time_recovery" {
  description = "Whether the table can be brought back to an earlier time."
  type        = bool
}

variable "deletion_protection" {
  description = "Whether the table refuses to be deleted."
  type        = bool
}

variable "force_destroy" {
  description = "Whether the bucket may be removed with what is in it."
  type        = bool
}

variable "inbox_days" {
  description = "Days for which uploaded files are kept; 0 for ever."
  type        = number
}

variable "outbox_days" {
  description = "Days for which result files are kept; 0 for ever."
  type        = number
}

variable "timeouts" {
  description = "Seconds that the Lambdas of queues may run."
  type        = object({ dispatch = number, upload = number })
}
