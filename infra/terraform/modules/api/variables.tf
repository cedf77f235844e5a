variable "grid" {
  description = "Name of the grid."
  type        = string
}

variable "submit" {
  description = "The Lambda behind every route but reads of results."
  type        = object({ name = string, arn = string, invoke_arn = string })
}

variable "read" {
  description = "The Lambda behind reads of results."
  type        = object({ name = string, arn = string, invoke_arn = string })
}

variable "rate" {
  description = "Requests a second."
  type        = number
}

variable "burst" {
  description = "Requests at once."
  type        = number
}

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
}
