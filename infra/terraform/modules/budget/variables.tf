variable "grid" {
  description = "Name of the grid."
  type        = string
}

variable "usd" {
  description = "Dollars a month."
  type        = number
}

variable "email" {
  description = "Who is told."
  type        = string
}
