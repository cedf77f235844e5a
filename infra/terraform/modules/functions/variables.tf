variable "grid" {
  description = "Name of the grid."
  type        = string
}

variable "packages" {
  description = "Folder of the zips."
  type        = string
}

variable "architecture" {
  description = "What they are built for."
  type        = string
}

variable "settings" {
  description = "Memory, timeout and reserved concurrency that differ from the defaults."
  type = map(object({
    memory_mb            = optional(number)
    timeout_s            = optional(number)
    reserved_concurrency = optional(number)
  }))
}

variable "timeouts" {
  description = "Seconds that the Lambdas of queues may run; the queues' visibility follows them."
  type        = object({ dispatch = number, upload = number })
}

variable "slots" {
  description = "Dispatching Lambdas at once, for each priority."
  type        = number
}

variable "environment" {
  description = "Environment of all of them."
  type        = map(string)
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
  description = "The queues of hints, by lane and priority."
  type        = map(object({ name = string, arn = string, url = string }))
}

variable "uploads" {
  description = "The queue of uploaded files."
  type        = object({ name = string, arn = string, url = string })
}

variable "dead" {
  description = "The queue of dead letters."
  type        = object({ name = string, arn = string, url = string })
}

variable "kms_key_arn" {
  description = "Key of the customer, or null."
  type        = string
}

variable "invoke_arns" {
  description = "Lambdas that tasks may name."
  type        = list(string)
}

variable "capacity" {
  description = "The services of ECS that the sweeper scales, and what it is told of them; null for none."
  type        = object({ cluster_arn = string, service_arns = list(string), told = string })
}

variable "event_bus_arn" {
  description = "Bus that hears of jobs that have ended, or null."
  type        = string
}

variable "stream_filter" {
  description = "Which records of the table's stream the result function is given: a JSON list of patterns."
  type        = string
}

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
}

variable "xray" {
  description = "Whether they are traced."
  type        = bool
}
