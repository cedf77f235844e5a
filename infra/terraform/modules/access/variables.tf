variable "grid" {
  description = "Name of the grid."
  type        = string
}

variable "api_arn" {
  description = "Execution ARN of the API."
  type        = string
}

variable "table" {
  description = "The table."
  type        = object({ name = string, arn = string, stream_arn = string })
}

variable "bucket" {
  description = "The bucket."
  type        = object({ name = string, arn = string })
}

variable "lanes" {
  description = "The queues of hints."
  type        = map(object({ name = string, arn = string, url = string }))
}

variable "kms_key_arn" {
  description = "Key of the customer, or null."
  type        = string
}
